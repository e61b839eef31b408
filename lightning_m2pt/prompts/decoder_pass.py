"""The one way through a decoder beside the library's own: rows appended to past rows, by the model's own forward.

The forward pass is transformers' model as it stands; as long as it lasts each layer's attention is told what stands in
front of the rows and what they see of it. So embedding multipliers, rotations of several kinds, norms, windows and caps
are the model's, and whatever is hooked to layers, stands in for their parts or recomputes them takes part.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lightning_m2pt.prompts.past_rows import (
    KeysAndValues,
    KeysRead,
    LayerView,
    PastRows,
    additive_mask,
    takes_past_rows,
)

Forward: TypeAlias = Callable[..., Tensor]
RunLayer: TypeAlias = Callable[[int, nn.Module, Forward, Tensor, dict[str, Any]], Tensor]
"""A layer's number, the layer, its own forward, its rows (B, N, D) and what else the library's model gives it."""


def append_rows(
    decoder: Any,  # noqa: ANN401  (transformers' model without its head)
    past: PastRows,
    embeddings: Tensor,
    positions: Tensor,
    visible: Tensor | None = None,
    wanted: Tensor | None = None,
    *,
    keeps: bool = True,
) -> tuple[Tensor, PastRows]:
    """Runs N new rows of every sample behind past rows.

    Args:
        decoder: A decoder that takes past rows.
        past: K rows of one sample, which all samples share, or of each.
        embeddings: (B, N, D) new rows.
        positions: (B or 1, N) int64.
        visible: (B or 1, N, K + N) bool, which past and new rows each new row sees, at least one each; windows are
            left to the layers that have some. None: all past rows, itself and the new rows before it.
        wanted: (B, W) the new rows whose output is needed, W may be 0; None: all. The last layer computes keys and
            values of all rows, and everything else of these alone.
        keeps: Whether the new rows' keys and values are needed afterwards.

    Returns:
        (B, W or N, D) after the final norm, and the past with the new rows behind it; as it was unless it keeps them.

    Raises:
        RuntimeError: If the decoder takes no past rows.
    """
    if not takes_past_rows(decoder):
        raise RuntimeError(f"{decoder.config._attn_implementation} attention would overlook past rows")
    stored: list[list[KeysAndValues]] = [[] for _ in decoder.layers]
    masks = Masks(decoder, past, embeddings, positions, visible)
    last = len(stored) - 1

    def run_layer(number: int, block: nn.Module, forward: Forward, states: Tensor, named: dict[str, Any]) -> Tensor:
        before = past.layers[number] if past.layers else None
        if wanted is None or number < last:
            stores = stored[number] if keeps else None
            if stores is not None and block.training and getattr(block, "gradient_checkpointing", False):
                # What a layer stores while it recomputes, compiled graphs would break at: its keys are read before.
                stores.append(read_keys(block, states, named, before))
                stores = None
            return forward(states, **named, view=LayerView(before, *masks.of_layer(number), stores))
        together = read_keys(block, states, named, before)
        stored[number].append(together)
        if not wanted.shape[1]:
            return states[:, :0]
        view = LayerView(together, *masks.of_layer(number, wanted), holds_own=True)
        return forward(chosen_rows(states, wanted, len(states)), **chosen_keywords(named, wanted), view=view)

    with layers_run_by(run_layer, decoder.layers):
        output = run(decoder, embeddings, positions)
    if not keeps:
        return output, past
    return output, PastRows([each[0] for each in stored], masks.columns, past.placeholders)


def prompt_rows(decoder: Any, rows: Sequence[Tensor | None]) -> PastRows:  # noqa: ANN401
    """Returns what a decoder's layers keep of prompt rows that are replaced at every layer, computed once.

    A deep prompt's rows meet other rows only as keys and values that depend on the prompt alone: attention output, MLP
    and logits of prompt rows are never needed. Exact, forward and backward.

    Args:
        decoder: A decoder that takes past rows.
        rows: (1, P, D) for every layer.

    Raises:
        ValueError: If a layer has none: only the token path can run that.
    """
    layers: list[KeysAndValues] = []
    weight = decoder.get_input_embeddings().weight
    length = next(prompt.shape[1] for prompt in rows if prompt is not None)
    positions = torch.arange(length, device=weight.device)[None]
    room = torch.zeros(1, length, weight.shape[1], dtype=weight.dtype, device=weight.device)

    def read_layer(number: int, block: nn.Module, _forward: Forward, states: Tensor, named: dict[str, Any]) -> Tensor:
        prompt = rows[number]
        if prompt is None:
            raise ValueError(f"layer {number} has no prompt: only the token path can run this")
        layers.append(read_keys(block, prompt.to(states.dtype), named, None))
        return states

    with layers_run_by(read_layer, decoder.layers):
        run(decoder, room, positions)
    return PastRows(layers, positions)


class Masks:
    """Which rows see which in every layer of a pass, as what is added to scores; None where all is causal.

    Attributes:
        columns: (B or 1, K + N) positions of past and new rows.
    """

    def __init__(
        self,
        decoder: Any,  # noqa: ANN401
        past: PastRows,
        embeddings: Tensor,
        positions: Tensor,
        visible: Tensor | None,
    ) -> None:
        samples = max(len(past.positions), len(positions))
        self.columns = torch.cat([past.positions.expand(samples, -1), positions.expand(samples, -1)], dim=1)
        self._past, self._positions, self._visible, self._dtype = past, positions, visible, embeddings.dtype
        self._samples = len(embeddings)
        window = getattr(decoder.config, "sliding_window", None)
        self._window = window if window is not None and window < self.columns.shape[1] else None
        self._made: dict[bool, tuple[Tensor | None, Tensor | None]] = {}

    def of_layer(self, number: int, wanted: Tensor | None = None) -> tuple[Tensor | None, Tensor | None]:
        """Returns the mask (B or 1, 1, N, K + N) of a layer without a window, and of one with a window.

        Args:
            number: The layer's.
            wanted: (B, W): the masks of these rows alone; they are never None.
        """
        hides = number < self._past.placeholders[0]
        if wanted is not None:
            return self._of_rows(hides, wanted)
        if hides not in self._made:
            self._made[hides] = self._of_rows(hides, None)
        return self._made[hides]

    def _of_rows(self, hides: bool, wanted: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        if self._visible is None and wanted is None and not hides and self._window is None:
            return None, None
        rows, columns = self._positions.shape[1], self.columns.shape[1]
        places = torch.arange(rows, device=self.columns.device)[None] if wanted is None else wanted
        if self._visible is None:
            numbers = torch.arange(columns, device=places.device)
            visible = numbers <= places[..., None] + columns - rows
        else:
            visible = self._visible if wanted is None else chosen_rows(self._visible, wanted, self._samples)
        if hides:
            hidden = torch.zeros(columns, dtype=torch.bool, device=places.device)
            hidden[self._past.placeholders[1]] = True
            visible = visible & (~hidden | hidden[places + columns - rows][..., None])
        full = None
        if self._visible is not None or wanted is not None or hides:
            full = additive_mask(visible, self._dtype)[:, None]
        if self._window is None:
            return full, full
        asking = (
            self._positions if wanted is None else chosen_rows(self._positions[..., None], wanted, len(wanted))[..., 0]
        )
        near = asking[..., None] - self.columns[:, None] < self._window
        return full, additive_mask(visible & near, self._dtype)[:, None]


def run(decoder: Any, embeddings: Tensor, positions: Tensor) -> Tensor:  # noqa: ANN401
    """Runs the library's forward, which shall make no mask of its own: it takes one of four dimensions as it is."""
    no_mask = embeddings.new_zeros(1, 1, 1, 1)
    output = decoder(inputs_embeds=embeddings, position_ids=positions, attention_mask=no_mask, use_cache=False)
    return output.last_hidden_state  # type: ignore[no-any-return]


@contextmanager
def layers_run_by(run_layer: RunLayer, layers: Sequence[nn.Module]) -> Iterator[None]:
    """Lets a function stand in for every layer's forward as long as it lasts; hooks on the layers go on working."""
    own = [vars(block).get("forward") for block in layers]
    for number, block in enumerate(layers):
        block.forward = standing_in(run_layer, number, block)
    try:
        yield
    finally:
        for block, forward in zip(layers, own, strict=True):
            del block.forward
            if forward is not None:  # a compiled one
                block.forward = forward


def standing_in(run_layer: RunLayer, number: int, block: Any) -> Forward:  # noqa: ANN401
    """Returns what is called in the place of a layer's forward."""
    forward = block.forward

    def stand_in(states: Tensor, **named: Any) -> Tensor:  # noqa: ANN401  (what the library's model gives its layers)
        return run_layer(number, block, forward, states, named)

    return stand_in


def read_keys(block: nn.Module, rows: Tensor, named: dict[str, Any], before: KeysAndValues | None) -> KeysAndValues:
    """Returns what a layer's attention reads of rows (B, N, D), behind what is read of the rows before them.

    The layer's own forward runs until its attention has its keys and values: outside of what it recomputes or compiles.
    """
    stores: list[KeysAndValues] = []
    forward = type(block).forward
    view = LayerView(before, stores=stores, only_reads=True)
    with queries_left_out(block), suppress(KeysRead):
        # The library wraps a layer's forward in one that recomputes.
        getattr(forward, "__wrapped__", forward)(block, rows, **named, view=view)
    return stores[0]


@contextmanager
def queries_left_out(block: Any) -> Iterator[None]:  # noqa: ANN401
    """Leaves out the product that makes queries, where it is one of its own: nobody asks while keys are read."""
    projection, attention = getattr(block.self_attn, "q_proj", None), block.self_attn
    if projection is None:
        yield
        return
    width = attention.config.num_attention_heads * attention.head_dim
    projection.forward = lambda states: states.new_zeros(()).expand(*states.shape[:-1], width)
    try:
        yield
    finally:
        del projection.forward


def chosen_rows(states: Tensor, wanted: Tensor, samples: int) -> Tensor:
    """Returns (B, W, D): rows ``wanted`` (B, W) of states (B or 1, N, D)."""
    expanded = states.expand(samples, -1, -1)
    return expanded.gather(1, wanted[..., None].expand(-1, -1, states.shape[-1]))


def chosen_keywords(named: dict[str, Any], wanted: Tensor) -> dict[str, Any]:
    """Returns what the library gives a layer, for the wanted rows (B, W): rotations and positions are chosen from."""
    rotation = tuple(chosen_rows(table, wanted, len(wanted)) for table in named["position_embeddings"])
    positions = named["position_ids"]
    if positions is not None:
        positions = chosen_rows(positions[..., None], wanted, len(wanted))[..., 0]
    return {**named, "position_embeddings": rotation, "position_ids": positions}
