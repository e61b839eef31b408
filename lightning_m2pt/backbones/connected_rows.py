"""Rows of pictures in the decoder's width, as they go between the tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_m2pt.inputs.batch import Span


@dataclass(frozen=True)
class ConnectedRows:
    """The rows of all pictures of a batch, in runs; each run takes the place of one placeholder.

    Attributes:
        rows: (R, D) behind the connector, run by run in the order of the placeholders.
        spans: (R,) int64, the ``Span`` of each.
        counts: How many rows each run has; their sum is R.
    """

    rows: Tensor
    spans: Tensor
    counts: list[int]

    @classmethod
    def of_alike(cls, rows: Tensor, spans: Sequence[Span]) -> "ConnectedRows":
        """Returns (I, N, D) rows of I pictures, a run each, whose N rows have these spans."""
        pictures, number, width = rows.shape
        of_picture = torch.tensor(spans, dtype=torch.long, device=rows.device)
        return cls(rows.reshape(-1, width), of_picture.repeat(pictures), [number] * pictures)

    @classmethod
    def none(cls, like: Tensor) -> "ConnectedRows":
        """Returns the rows of no picture, with the type, device and width of (V, D) embeddings."""
        return cls(like.new_empty(0, like.shape[1]), torch.empty(0, dtype=torch.long, device=like.device), [])
