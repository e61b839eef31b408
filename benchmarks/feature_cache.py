"""A step of the testbed's projector experiment with and without cached vision features.

    python -m benchmarks.feature_cache --rounds 7

Rounds alternate; times are process time per step of a plain loop. The first pass with the cache fills it and is listed
by itself. Whether a picture's features depend on the batch it was computed in is counted bit for bit.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.measured_on import measured_on
from benchmarks.overhead import bare, prepared
from experiments.training import tuning_data
from lightning_m2pt.feature_cache import bytes_below


def batch_dependence(words: list[str]) -> dict[str, Any]:
    """Compares features of pictures computed one by one with those of the first batch."""
    experiment = prepared(words)
    backbone = experiment.model.backbone
    pixels = next(iter(tuning_data(experiment).train_dataloader())).pixel_values
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
    parser.add_argument("--steps", type=int, default=33)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/feature_cache.json"))
    own = parser.parse_args()
    torch.set_num_threads(1)
    words = ["--config", own.config, "--trainer.max_steps", str(own.steps)]
    with tempfile.TemporaryDirectory() as folder:
        cached = [*words, "--model.backbone.feature_cache", folder]
        filling = bare(cached, own.steps)
        rounds = [(bare(words, own.steps), bare(cached, own.steps)) for _ in range(own.rounds)]
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
        "one_by_one_against_one_batch": batch_dependence(words),
        "measured_on": measured_on(),
    }
    own.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
