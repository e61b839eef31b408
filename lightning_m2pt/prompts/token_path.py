"""The token path: prompt rows stand in the sequence and are overwritten before each layer.

This is the readable reference, as the paper writes it (``[_, O^i] = f^i([P^(i-1), O^(i-1)])``): what a layer makes of
the prompt rows is thrown away and replaced at the next. The backbone's classes are untouched; hooks do the work.

The hooks stay installed from ``install`` to ``remove`` and read the rows of the forward pass that last ran, so that
activation checkpointing, which calls the layers again during the backward pass, sees the same rows.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from lightning_m2pt.prompts.row_hooks import RowHooks

VisualPosition: TypeAlias = Literal["before_cls", "after_cls"]


def put_rows_first(rows: Tensor, hidden_states: Tensor, replaced: int, kept: int = 0) -> Tensor:
    """Returns (B, P + S - replaced, D): ``rows`` (1, P, D) for every sample in the place of rows of the sequence.

    Args:
        rows: (1, P, D).
        hidden_states: (B, S, D).
        replaced: How many rows of the sequence they replace.
        kept: How many rows of the sequence stay in front of them.
    """
    expanded = rows.to(hidden_states.dtype).expand(hidden_states.shape[0], -1, -1)
    return torch.cat([hidden_states[:, :kept], expanded, hidden_states[:, kept + replaced :]], dim=1)


class VisionTokenPath(RowHooks):
    """Prompt rows in a bidirectional tower: put in before the first layer that has some, overwritten later."""

    def __init__(self) -> None:
        super().__init__()
        self.position: VisualPosition = "before_cls"

    def install(self, blocks: Sequence[nn.Module]) -> None:
        """Hooks every block's input."""
        for layer, block in enumerate(blocks):
            self._handles.append(block.register_forward_pre_hook(self._hook(layer)))

    @property
    def rows_in_front(self) -> int:
        """How many rows of the tower's own stand before the prompts: none, or CLS."""
        return int(self.position == "after_cls")

    def without_prompts(self, states: Tensor, length: int) -> Tensor:
        """Returns (B, 1 + N, D), CLS and patches, of (B, P + 1 + N, D); there are no prompts if no block has rows."""
        if all(rows is None for rows in self.rows):
            return states
        in_front = self.rows_in_front
        return torch.cat([states[:, :in_front], states[:, in_front + length :]], dim=1)

    def _hook(self, layer: int) -> Any:  # noqa: ANN401  (torch's hook type is a union of call signatures)
        def overwrite(_block: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            rows = self.rows[layer] if self.rows else None
            if rows is None:
                return None
            first = next(number for number, candidate in enumerate(self.rows) if candidate is not None)
            replaced = 0 if layer == first else rows.shape[1]
            return (put_rows_first(rows, arguments[0], replaced, self.rows_in_front), *arguments[1:])

        return overwrite


class LanguageTokenPath(RowHooks):
    """Prompt rows in a causal decoder: P rows stand in front of the sequence from the start.

    Rotary positions 0..P-1 belong to the prompts, so the first real row has position P in every variant. Before the
    first layer that has rows, the P rows are placeholders that nobody may look at; behind past rows, and for what reads
    their keys later, ``PastRows.placeholders`` says so.
    """

    def __init__(self) -> None:
        super().__init__()

    def install(self, layers: Sequence[nn.Module]) -> None:
        """Hooks every decoder layer's input."""
        for layer, block in enumerate(layers):
            self._handles.append(block.register_forward_pre_hook(self._hook(layer), with_kwargs=True))

    def _hook(self, layer: int) -> Any:  # noqa: ANN401
        def overwrite(
            _block: nn.Module, arguments: tuple[Tensor, ...], keywords: dict[str, Any]
        ) -> tuple[tuple[Tensor, ...], dict[str, Any]] | None:
            if not self.rows:
                return None
            listed = [number for number, candidate in enumerate(self.rows) if candidate is not None]
            length = self.rows[listed[0]].shape[1]  # type: ignore[union-attr]
            hidden_states = arguments[0]
            if layer < listed[0]:
                mask = hide_placeholders(keywords.get("attention_mask"), hidden_states.shape[1], length)
                return arguments, {**keywords, "attention_mask": mask.to(hidden_states.device)}
            rows = self.rows[layer]
            if rows is None:
                return None
            return (put_rows_first(rows, hidden_states, length), *arguments[1:]), keywords

        return overwrite


def hide_placeholders(mask: Tensor | None, rows: int, length: int) -> Tensor:
    """Returns a (B or 1, 1, S, S) mask under which only placeholders see placeholders.

    Args:
        mask: The library's mask for this layer: None for plain causal, else boolean (True = visible) or additive.
        rows: S, the placeholders in front included.
        length: Number of placeholders.

    Returns:
        A boolean mask, or an additive one where the library's is: its eager functions add what they are given.
    """
    changed = torch.ones(1, 1, rows, rows, dtype=torch.bool).tril() if mask is None else mask.clone()
    changed[:, :, length:, :length] = False if changed.dtype == torch.bool else torch.finfo(changed.dtype).min
    return changed


def prepend_placeholders(embeddings: Tensor, rows: Sequence[Tensor | None]) -> Tensor:
    """Returns (B, P + S, D): room for the prompts in front of the embeddings (B, S, D); content is overwritten."""
    first = next(candidate for candidate in rows if candidate is not None)
    return put_rows_first(torch.zeros_like(first), embeddings, 0)
