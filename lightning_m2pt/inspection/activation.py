"""Activation of columns: how much attention each token gets (M2PT, Figure 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inspection.named_maps import LayerAttention

Queries: TypeAlias = Literal["all", "content"]
"""Which rows are averaged over: ``all``, as the paper's figure has it; ``content`` leaves out the prompt rows at the
front, whose output is thrown away where every layer has prompts of its own."""


@dataclass(frozen=True)
class Activations:
    """Column activations of several layers over the same columns.

    Attributes:
        layers: Their numbers.
        values: (L, S); not a number where a layer has no such column (prompts that enter higher up).
        spans: (S,) int64.
    """

    layers: tuple[int, ...]
    values: Tensor
    spans: Tensor

    @property
    def average(self) -> Tensor:
        """(S,): each column's mean over the layers that have it."""
        return self.values.nanmean(dim=0)


def column_activation(attention: LayerAttention, queries: Queries = "all") -> Tensor:
    """Returns (S,): the mean of every column over heads and queries; sums to 1.

    In a causal decoder an early column is seen by more queries than a late one, which this mean does not undo.
    """
    maps = attention.probabilities
    if queries == "content":
        maps = maps[:, attention.prompts :]
    return maps.mean(dim=(0, 1))


def activations(layers: Sequence[LayerAttention], queries: Queries = "all") -> Activations:
    """Returns the column activations of layers; prompts stand in front, so columns are aligned at their end.

    Args:
        layers: At least one, of one sample and one part of the model.
        queries: Which rows are averaged over.
    """
    spans = max((layer.spans for layer in layers), key=len)
    values = torch.full((len(layers), len(spans)), float("nan"))
    for number, layer in enumerate(layers):
        values[number, len(spans) - len(layer.spans) :] = column_activation(layer, queries).float()
    return Activations(tuple(layer.layer for layer in layers), values, spans)


def span_means(values: Tensor, spans: Tensor) -> dict[Span, float]:
    """Returns for every span that occurs the mean of its columns' activations (S,), in the order of the spans."""
    return {Span(number): float(values[spans == number].nanmean()) for number in spans.unique(sorted=True).tolist()}
