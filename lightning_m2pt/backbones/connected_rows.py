"""Rows of pictures in the decoder's width, as they go between the tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.prompts.rotary_axes import positions_of_rows


@dataclass
class VisualRows:
    """Rows that go through the connector: (B, N, D) and the span of each of the N."""

    rows: Tensor
    spans: list[Span]


@dataclass(frozen=True)
class ConnectedRows:
    """The rows of all pictures of a batch, in runs; each run takes the place of one placeholder.

    Attributes:
        rows: (R, D) behind the connector, run by run in the order of the placeholders.
        spans: (R,) int64, the ``Span`` of each.
        counts: How many rows each run has; their sum is R.
        advances: (R,) int64, by how much each row moves on the positions behind it; None: by one.
        within: (R,) int64, what is added to a row's position for its place in its picture
            (``lightning_m2pt/prompts/rotary_axes.py``); None where positions have one axis.
    """

    rows: Tensor
    spans: Tensor
    counts: list[int]
    advances: Tensor | None = None
    within: Tensor | None = None

    @classmethod
    def of_alike(cls, rows: Tensor, spans: Sequence[Span]) -> "ConnectedRows":
        """Returns (I, N, D) rows of I pictures, a run each, whose N rows have these spans."""
        pictures, number, width = rows.shape
        of_picture = torch.tensor(spans, dtype=torch.long, device=rows.device)
        return cls(rows.reshape(-1, width), of_picture.repeat(pictures), [number] * pictures)

    @classmethod
    def none(cls, like: Tensor) -> "ConnectedRows":
        """Returns the rows of no picture, with the type, device and width of (V, D) embeddings."""
        # Not like.new_empty: of weights that are shared out among ranks it would be shared out as well.
        rows = torch.empty(0, like.shape[1], dtype=like.dtype, device=like.device)
        return cls(rows, torch.empty(0, dtype=torch.long, device=like.device), [])


@dataclass(frozen=True)
class AssembledRows:
    """A batch as the decoder reads it.

    Attributes:
        embeddings: (B, S, D).
        labels: (B, S) int64.
        spans: (B, S) int64.
        positions: (B, S) int64, or None where a row's position is its number.
        frozen_words: Whether the rows of words depend on nothing that is trained.
    """

    embeddings: Tensor
    labels: Tensor
    spans: Tensor
    positions: Tensor | None
    frozen_words: bool


def positions_in_order(pictures: ConnectedRows, order: Tensor, tokens: int) -> Tensor | None:
    """Returns the positions (B, S) of rows laid out from tokens, one row of padding and pictures' rows.

    Args:
        pictures: The rows of pictures.
        order: (B, S) the row that stands at each place.
        tokens: How many tokens there are.
    """
    if pictures.advances is None or pictures.within is None:
        return None
    text = torch.ones(tokens + 1, dtype=torch.long, device=order.device)
    advances, within = torch.cat([text, pictures.advances]), torch.cat([text * 0, pictures.within])
    return positions_of_rows(advances[order], within[order])
