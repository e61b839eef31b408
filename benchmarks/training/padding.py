"""How much is padded with and without grouping by length, and what packing could still give.

    python -m benchmarks.training.padding --rounds 7

The shares are arithmetic over one epoch: of the testbed's own texts, and of invented lengths like Vision-Flan's (no
file of Vision-Flan was at hand). A row is a token, or one of the rows of a picture. Packing is computed for steps that
keep their samples: they are laid side by side into sequences of about 2,048 rows. The time is process time of bare
steps on the testbed: the same samples as eight drawn steps and as eight steps of like length, alternating.
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy
import torch

from benchmarks.report.machine import machine
from benchmarks.training.steps import TrainingSteps
from lightning_m2pt.tuning.sample_order import LengthGroups, samples_of_steps

GROUPS = (0, 1, 2, 4, 8, 16, 64)
SPLITS = ((32, 16), (32, 32), (128, 16))
VISION_FLAN_SAMPLES = 186_103
FIXED_TOKENS = 35
INSTRUCTION_MEDIAN, INSTRUCTION_SIGMA = 70, 0.7
ANSWER_MEDIAN, ANSWER_SIGMA = 14, 1.2
LONGEST = 1024
ROWS_OF_IMAGE = 276
PACKED_LENGTH = 2048
TESTBED_ROWS_OF_IMAGE = 36 + 10
TIMED_STEPS = 8


def vision_flan_like_lengths() -> numpy.ndarray:
    """Returns invented text lengths: fixed text, log-normal instructions and log-normal answers."""
    generator = numpy.random.default_rng(0)
    instructions = generator.lognormal(numpy.log(INSTRUCTION_MEDIAN), INSTRUCTION_SIGMA, VISION_FLAN_SAMPLES)
    answers = generator.lognormal(numpy.log(ANSWER_MEDIAN), ANSWER_SIGMA, VISION_FLAN_SAMPLES)
    return numpy.minimum(numpy.ceil(FIXED_TOKENS + instructions + answers), LONGEST).astype(numpy.int64)


def padded_share(rows: numpy.ndarray, batch_size: int, micro_batch_size: int, steps_together: int) -> float:
    """Returns the share of padded rows of one epoch; ``rows`` are those of every sample, picture included."""
    groups = LengthGroups(rows, steps_together) if steps_together else None
    in_order = rows[samples_of_steps(0, 0, len(rows), batch_size, groups)].reshape(-1, micro_batch_size)
    return 1 - float(in_order.sum() / (in_order.max(axis=1) * micro_batch_size).sum())


def packed_share(rows: numpy.ndarray, batch_size: int) -> float:
    """Returns the padded share of one epoch whose steps are packed evenly.

    Every step takes as few sequences as its rows need; its samples go, longest first, into the emptiest one, and all
    are padded to the fullest one, as a rectangular batch has to be.
    """
    used = padded = 0
    for step in rows[samples_of_steps(0, 0, len(rows), batch_size)]:
        filled = [0] * math.ceil(step.sum() / PACKED_LENGTH)
        for length in sorted(step.tolist(), reverse=True):
            filled[filled.index(min(filled))] += length
        used += sum(filled)
        padded += max(filled) * len(filled) - sum(filled)
    return padded / (used + padded)


def summary_of(rows: numpy.ndarray) -> dict[str, float]:
    """Returns mean and quantiles of the rows of a sample."""
    return {"samples": len(rows), "mean": float(rows.mean())} | {
        f"percentile_{point}": float(numpy.percentile(rows, point)) for point in (5, 50, 95, 100)
    }


def shares(rows: numpy.ndarray, splits: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    """Returns the padded share of every split and every group size."""
    return {
        f"{batch_size} in micro-batches of {micro}": {
            f"group_by_length {together}": round(padded_share(rows, batch_size, micro, together), 4)
            for together in GROUPS
        }
        for batch_size, micro in splits
    }


def main() -> None:
    """Computes the shares, times the testbed's steps, and stores both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="experiments/m2pt_base.yaml")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/padding.json"))
    own, words = parser.parse_known_args()  # what is left are words of the experiment
    torch.set_num_threads(1)
    steps = TrainingSteps(["--config", own.config, *words])
    lengths = numpy.array([len(text) for text in steps.data.train_texts])
    invented = vision_flan_like_lengths() - 1 + ROWS_OF_IMAGE
    testbed = lengths - 1 + TESTBED_ROWS_OF_IMAGE
    drawn = samples_of_steps(0, 0, len(lengths), steps.data.batch_size)[:TIMED_STEPS]
    grouped = drawn.reshape(-1)[numpy.argsort(-lengths[drawn.reshape(-1)], kind="stable")].reshape(drawn.shape)
    sides = [[steps.batch(row) for row in order.tolist()] for order in (drawn, grouped)]
    steps.seconds(sides[0])  # warms up
    rounds = [[steps.seconds(batches) / TIMED_STEPS for batches in sides] for _ in range(own.rounds)]
    drawn_time, grouped_time = (statistics.median(column) for column in zip(*rounds, strict=True))
    content = {
        "vision_flan_like": {
            "lengths": f"{FIXED_TOKENS} + lognormal(median {INSTRUCTION_MEDIAN}, sigma {INSTRUCTION_SIGMA}) + "
            f"lognormal(median {ANSWER_MEDIAN}, sigma {ANSWER_SIGMA}), at most {LONGEST}, and {ROWS_OF_IMAGE} rows",
            "rows": summary_of(invented),
            "padded": shares(invented, SPLITS),
            "packed": {f"{size}": round(packed_share(invented, size), 4) for size in (32, 128)},
        },
        "testbed": {
            "rows": summary_of(testbed),
            "padded": shares(testbed, ((32, 32), (32, 8))),
            "milliseconds_per_step": {"drawn": 1000 * drawn_time, "grouped": 1000 * grouped_time},
            "saved_percent": 100 * (1 - grouped_time / drawn_time),
            "rounds": [[1000 * value for value in each] for each in rounds],
        },
        "made_with": machine(),
    }
    own.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
