"""A step of the testbed's projector experiment with and without cached vision features.

    python -m benchmarks.training.feature_cache --rounds 7

Rounds alternate; times are process time of bare steps over the same batches. The first pass with the cache fills it and
is listed by itself. Whether a picture's features depend on the batch it was computed in is counted bit for bit.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.report.machine import machine
from benchmarks.training.steps import TrainingSteps
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.feature_cache import FeatureCache, bytes_below
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.tuning.sample_order import samples_of_steps

TIMED_STEPS = 10


def batch_dependence(backbone: Backbone, pixels: torch.Tensor) -> dict[str, Any]:
    """Compares features of pictures computed one by one with those of one batch."""
    with torch.no_grad():
        together = backbone.visual_rows(pixels).rows
        alone = torch.cat([backbone.visual_rows(picture[None]).rows for picture in pixels])
    return {
        "pictures": len(pixels),
        "pictures_with_other_bits": int((together != alone).flatten(1).any(dim=1).sum()),
        "largest_relative_difference": float((together - alone).abs().max() / together.abs().max()),
    }


def main() -> None:
    """Alternates the two and stores the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="experiments/projector.yaml")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/feature_cache.json"))
    own, words = parser.parse_known_args()  # what is left are words of the experiment
    torch.set_num_threads(1)
    steps = TrainingSteps(["--config", own.config, *words])
    backbone, data = steps.model.backbone, steps.data
    assert isinstance(backbone, OpenClipLlama)
    positions = samples_of_steps(0, 0, len(data.train_texts), data.batch_size)[:TIMED_STEPS]
    batches = [steps.batch(row) for row in positions.tolist()]
    steps.seconds(batches)  # warms up
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder), maximum_bytes=10**9, computing="")
        backbone.feature_cache = cache
        filling = steps.seconds(batches) / TIMED_STEPS
        rounds = []
        for _ in range(own.rounds):
            times = []
            for backbone.feature_cache in (None, cache):
                times.append(steps.seconds(batches) / TIMED_STEPS)
            rounds.append(times)
        size = bytes_below(Path(folder))
    without, with_cache = (statistics.median(column) for column in zip(*rounds, strict=True))
    content = {
        "config": own.config,
        "milliseconds_per_step": {
            "without": 1000 * without,
            "with": 1000 * with_cache,
            "while it is filled": 1000 * filling,
        },
        "saved_percent": 100 * (1 - with_cache / without),
        "rounds": [[1000 * value for value in each] for each in rounds],
        "cache_bytes": size,
        "one_by_one_against_one_batch": batch_dependence(backbone, batches[0].pixel_values),
        "made_with": machine(),
    }
    own.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
