"""Where the rows of pictures go among the rows of a text."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID


@dataclass(frozen=True)
class Splice:
    """Text rows with runs of pictures' rows in the places of their placeholders.

    Attributes:
        order: (B, S) int64: for every output position the row of [B T text rows, 1 row of padding, R picture rows]
            that goes there. S is the length of the longest sample; shorter ones end in padding.
        begins: (B, T) int64, the output position of every token; of a placeholder that of its first row.
    """

    order: Tensor
    begins: Tensor


def splice(input_ids: Tensor, is_real: Tensor, counts: Sequence[int]) -> Splice:
    """Lays runs of rows out between tokens.

    Args:
        input_ids: (B, T), with an ``IMAGE_TOKEN_ID`` for each of N runs.
        is_real: (B, T) bool, false on the padding at the right end.
        counts: Rows of each run, sample by sample; their sum is R.

    Raises:
        ValueError: If there are more or fewer placeholders than runs, or a run has no row.
    """
    samples, length = input_ids.shape
    device = input_ids.device
    marks = input_ids == IMAGE_TOKEN_ID
    sample_of_run, place_of_run = marks.nonzero().unbind(1)
    if len(sample_of_run) != len(counts) or min(counts, default=1) < 1:
        raise ValueError(f"{len(sample_of_run)} image placeholders for {len(counts)} runs of rows, each of one or more")
    lengths = torch.tensor(counts, dtype=torch.long, device=device)
    rows = torch.ones_like(input_ids).masked_scatter_(marks, lengths)
    begins = rows.cumsum(dim=1) - rows
    longest = int((rows * is_real).sum(dim=1).max())
    padding = samples * length
    # One column more takes what falls behind the longest sample: padding of the text.
    order = torch.full((samples, longest + 1), padding, dtype=torch.long, device=device)
    tokens = torch.arange(padding, device=device).view(samples, length)
    order.scatter_(1, begins.clamp(max=longest), tokens)
    run = torch.arange(len(counts), device=device).repeat_interleave(lengths)
    row = torch.arange(len(run), device=device)
    inside = row - (lengths.cumsum(0) - lengths)[run]
    order[sample_of_run[run], begins[sample_of_run, place_of_run][run] + inside] = padding + 1 + row
    return Splice(order[:, :longest], begins)
