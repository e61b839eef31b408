"""Lengths of a batch's texts at the sizes that are measured, and what a batch of them costs at least."""

import random
from collections.abc import Callable
from dataclasses import replace

from benchmarks.training.flop_formula import ideal_step
from benchmarks.training.sizes import TrainingSize

QUESTION, ANSWER = (90.0, 0.6), (12.0, 1.2)
"""Median and deviation (of the logarithm) of question and answer lengths: our stand-in for Vision-Flan's mix of short
and long answers, no statistics of the set."""
LONGEST_TEXT = 1024

Lengths = list[tuple[int, int]]
"""Of each sample its text tokens, and how many of them are supervised."""


def fixed_lengths(size: TrainingSize) -> Lengths:
    """Returns the size's own length for every sample."""
    return [(size.text_tokens, size.supervised)] * size.batch


def mixed_lengths(size: TrainingSize) -> Lengths:
    """Returns log-normal questions and answers, cut at ``LONGEST_TEXT`` tokens; the same for everybody."""
    generator = random.Random(0)

    def drawn(median: float, deviation: float) -> int:
        return max(1, round(median * generator.lognormvariate(0.0, deviation)))

    lengths = []
    for _ in range(size.batch):
        question, answer = drawn(*QUESTION), drawn(*ANSWER)
        total = min(size.system_tokens + question + answer, LONGEST_TEXT)
        lengths.append((total, min(answer, total - size.system_tokens)))
    return lengths


LENGTHS: dict[str, Callable[[TrainingSize], Lengths]] = {"fixed": fixed_lengths, "mixed": mixed_lengths}


def ideal_flops(size: TrainingSize, lengths: Lengths, *, trained_head: bool) -> float:
    """Returns the formula's operations of a batch of mixed lengths: every term is per sample or shared by the batch."""
    each = [replace(size, batch=len(lengths), text_tokens=tokens, supervised=answer) for tokens, answer in lengths]
    return sum(ideal_step(one, trained_head=trained_head) for one in each) / len(lengths)


def padding_share(size: TrainingSize, lengths: Lengths) -> float:
    """Returns the share of the decoder's rows that only fill up shorter samples."""
    rows = [size.visual_length + size.patches + tokens for tokens, _ in lengths]
    return 1 - sum(rows) / (max(rows) * len(rows))
