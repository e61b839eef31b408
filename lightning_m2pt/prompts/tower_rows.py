"""Prompt rows in a vision tower of transformers, both ways: in the sequence, and as keys and values in front of it.

The blocks are the library's: CLIP, SigLIP, SigLIP-2, DINOv2 and every other tower whose blocks return their rows, whose
attention goes through the library's attention interface, and in which every row sees every other that is no padding.
Both ways are switched by what they are given: without rows the blocks compute what the library wrote, bit for bit.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.prompts.past_rows import (
    KeysAndValues,
    KeysRead,
    additive_mask,
    concatenated,
    known_to_products,
    library_name,
)
from lightning_m2pt.prompts.plain_attention import plain_attention, prefers_products
from lightning_m2pt.prompts.row_hooks import RowHooks
from lightning_m2pt.prompts.token_path import VisualPosition, put_rows_first

ATTENTION_NAMES = ("self_attn", "attn", "attention")
"""What libraries call a block's attention."""
BEHIND_PROMPTS = {"sdpa": "behind_prompts", "eager": "behind_prompts_eagerly"}
"""The library's attention functions that ours are built upon, and our names in its tables."""
PLACE = "prompt_keys"
"""Where an attention module finds the keys and values of its block's prompts."""


class TowerTokenPath(RowHooks):
    """The reference: prompt rows stand in the sequence while a block runs, and are taken out again behind it.

    What the library collects of the blocks, such as hidden states of several layers, is therefore free of prompt rows,
    and its own selection of CLS and patches stays right. Where the next block has no rows of its own, what the last one
    made of the prompt rows goes on into it, like any other row.

    Attributes:
        position: Before the tower's own rows in front (CLS) or behind them. Without such rows there is no difference.
    """

    def __init__(self) -> None:
        super().__init__()
        self.position: VisualPosition = "before_cls"
        self._rows_in_front = 0
        self._flowing: list[Tensor | None] = []

    def install(self, blocks: Sequence[nn.Module], rows_in_front: int) -> None:
        """Hooks the blocks that are used; later ones see no prompt row.

        Args:
            blocks: In the order in which they run.
            rows_in_front: How many rows of the tower's own, such as CLS, stand in front of the patches.
        """
        self._rows_in_front = rows_in_front
        self._flowing = [None] * len(blocks)
        for layer, block in enumerate(blocks):
            self._handles.append(block.register_forward_pre_hook(self._put_in(layer), with_kwargs=True))
            # In front of the library's own hook, which collects what a block returns.
            self._handles.append(block.register_forward_hook(self._take_out(layer), prepend=True))

    @property
    def _kept(self) -> int:
        return self._rows_in_front if self.position == "after_cls" else 0

    def _put_in(self, layer: int) -> Any:  # noqa: ANN401  (torch's hook type is a union of call signatures)
        def put_in(
            _block: nn.Module, given: tuple[Any, ...], named: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            rows = self._of_layer(layer)
            if rows is None:
                return None
            states = put_rows_first(rows, given[0], 0, self._kept)
            others = [with_rows_seen(mask, rows.shape[1], self._kept) for mask in given[1:2]]
            mask = named.get("attention_mask")
            if mask is not None:
                named = {**named, "attention_mask": with_rows_seen(mask, rows.shape[1], self._kept)}
            return (states, *others, *given[2:]), named

        return put_in

    def _take_out(self, layer: int) -> Any:  # noqa: ANN401
        def take_out(_block: nn.Module, _given: tuple[Any, ...], states: Tensor) -> Tensor | None:
            rows = self._of_layer(layer)
            if rows is None:
                return None
            kept, behind = self._kept, self._kept + rows.shape[1]
            if layer + 1 < len(self.rows) and self.rows[layer + 1] is None:
                self._flowing[layer] = states[:, kept:behind]
            return torch.cat([states[:, :kept], states[:, behind:]], dim=1)

        return take_out

    def _of_layer(self, layer: int) -> Tensor | None:
        """Returns the prompt rows that a block runs with: its own, or what the last block made of earlier ones."""
        if not self.rows or all(rows is None for rows in self.rows[: layer + 1]):
            return None
        own = self.rows[layer]
        return own if own is not None else self._flowing[layer - 1]


class PromptKeys:
    """The keys and values of one block's prompt rows in the pass that last ran.

    Every block has an object of its own and knows no number, so that compiled blocks share a graph.
    """

    pair: KeysAndValues | None = None
    is_reading = False


class TowerPrefixPath:
    """Prompt rows as keys and values that each block's attention has in front of its own, computed once per batch.

    They are the library's: its block runs the prompt rows until its attention has their keys and values. Exact, forward
    and backward, also where blocks recompute their activations, if every block has rows of its own.
    """

    def __init__(self) -> None:
        self._rows: Sequence[Tensor | None] = ()
        self._blocks: list[tuple[nn.Module, PromptKeys]] = []
        self._chosen: list[tuple[Any, str]] = []
        self.position: VisualPosition = "before_cls"

    @property
    def rows(self) -> Sequence[Tensor | None]:
        """The rows of every block; empty if blocks shall compute as the library wrote them."""
        return self._rows

    @rows.setter
    def rows(self, rows: Sequence[Tensor | None]) -> None:
        """Computes every block's keys and values.

        Raises:
            ValueError: If a block has no rows of its own: only the token path can run that.
        """
        self._rows = rows
        for layer, (block, place) in enumerate(self._blocks):
            own = rows[layer] if rows else None
            if rows and own is None:
                raise ValueError(f"block {layer} has no prompt: only the token path can run this")
            place.pair = None if own is None else read_keys(block, place, own)

    def install(self, blocks: Sequence[nn.Module], rows_in_front: int = 0) -> None:
        """Lets the attention of these blocks look for prompts.

        Args:
            blocks: In the order in which they run; ``takes_prompt_keys`` tells of all that they can.
            rows_in_front: Of no importance here: attention does not ask for the order of keys.

        Raises:
            BadInputError: If their attention would overlook the prompts.
        """
        del rows_in_front
        if not takes_prompt_keys(blocks):
            raise BadInputError(
                f"{type(blocks[0]).__name__} takes no prompt keys beside its own",
                where="model.method.init_args.path",
                expected="token: its attention is none that the library lets be replaced",
            )
        register_functions()
        configs = {id(config): config for config in (attention_of(block).config for block in blocks)}
        for config in configs.values():
            chosen = config._attn_implementation
            self._chosen.append((config, chosen))
            config._attn_implementation = BEHIND_PROMPTS[library_name(chosen)]
        for block in blocks:
            self._blocks.append((block, PromptKeys()))
            setattr(attention_of(block), PLACE, self._blocks[-1][1])
        self.rows = self._rows

    def remove(self) -> None:
        """Gives the blocks the library's attention function back."""
        for block, _ in self._blocks:
            delattr(attention_of(block), PLACE)
        for config, chosen in self._chosen:
            config._attn_implementation = chosen
        self._blocks.clear()
        self._chosen.clear()
        self._rows = ()


def attention_of(block: Any) -> Any:  # noqa: ANN401
    """Returns a block's attention, or None if it has none under a name that the library uses."""
    return next((getattr(block, name) for name in ATTENTION_NAMES if hasattr(block, name)), None)


def takes_prompt_keys(blocks: Sequence[nn.Module]) -> bool:
    """Tells whether prompts can be keys and values in these blocks.

    The library must ask its table for their attention function, compute attention with ``sdpa`` or ``eager``, and hide
    no row behind another.
    """
    for block in blocks:
        attention = attention_of(block)
        chosen = getattr(getattr(attention, "config", None), "_attn_implementation", None)
        known = chosen in BEHIND_PROMPTS.values() or library_name(str(chosen)) in BEHIND_PROMPTS
        if not known or getattr(attention, "is_causal", True):
            return False
    return True


def register_functions() -> None:
    """Puts our attention functions, and the masks that go with them, into the library's tables."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask

    for name, function, mask in (("sdpa", behind_prompts, sdpa_mask), ("eager", behind_prompts_eagerly, eager_mask)):
        AttentionInterface.register(BEHIND_PROMPTS[name], function)
        AttentionMaskInterface.register(BEHIND_PROMPTS[name], mask)


def behind_prompts(
    module: Any,  # noqa: ANN401
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **keywords: Any,  # noqa: ANN401  (the library's interface: what one attention function needs, all are given)
) -> tuple[Tensor, Tensor | None]:
    """Attention of rows over the prompts of their block and over themselves.

    Args:
        module: The library's attention module.
        query: (B, H, N, D_head).
        key: (B, H, N, D_head).
        value: (B, H, N, D_head).
        attention_mask: The library's mask, (B, 1, N, N), or None.
        keywords: What the library hands on, such as ``scaling``.

    Raises:
        KeysRead: If nothing but the keys and values is wanted.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    keys, values, mask = in_front(module, key, value, attention_mask)
    is_known = keys.shape[2] > key.shape[2] and known_to_products(keywords, is_causal=False)
    if is_known and prefers_products(query, keys, keywords.get("dropout")):
        if mask is not None and mask.dtype == torch.bool:
            mask = additive_mask(mask, query.dtype)
        return plain_attention(query, keys, values, mask, keywords["scaling"]), None
    return sdpa_attention_forward(module, query, keys, values, mask, **keywords)  # type: ignore[no-any-return]


def behind_prompts_eagerly(
    module: Any,  # noqa: ANN401
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **keywords: Any,  # noqa: ANN401
) -> tuple[Tensor, Tensor | None]:
    """The same with the eager function of the model's own file."""
    eager = sys.modules[type(module).__module__].eager_attention_forward
    keys, values, mask = in_front(module, key, value, attention_mask)
    return eager(module, query, keys, values, mask, **keywords)  # type: ignore[no-any-return]


def in_front(module: Any, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:  # noqa: ANN401
    """Returns keys and values (B, H, P + N, D_head), the prompts' first, and the mask that goes with them.

    Raises:
        KeysRead: If nothing else is wanted.
    """
    place: PromptKeys | None = getattr(module, PLACE, None)
    if place is None:  # another tower of the same configuration
        return key, value, mask
    if place.is_reading:
        place.pair = key, value
        raise KeysRead
    if place.pair is None:
        return key, value, mask
    keys, values = concatenated(place.pair, (key, value))
    if mask is not None:
        mask = with_columns_seen(mask, keys.shape[2] - key.shape[2])
    return keys, values, mask


def read_keys(block: nn.Module, place: PromptKeys, rows: Tensor) -> KeysAndValues:
    """Returns what a block's attention reads of prompt rows (1, P, D).

    The block's own forward runs until its attention has them: outside of what it recomputes or compiles.
    """
    forward: Any = type(block).forward
    # Norms and low-rank matrices that are trained beside it are float32 whatever the block's type is, and smaller.
    weight = max(block.parameters(), key=torch.numel)
    place.is_reading = True
    try:
        with suppress(KeysRead):
            # The library may wrap a block's forward in one that collects or recomputes.
            getattr(forward, "__wrapped__", forward)(block, rows.to(weight.dtype), attention_mask=None)
    finally:
        place.is_reading = False
    pair = place.pair
    assert pair is not None
    return pair


def with_columns_seen(mask: Tensor, columns: int, at: int = 0) -> Tensor:
    """Returns a mask (B, 1, N, K + columns) in which every row sees the columns put in before column ``at``."""
    seen = mask.new_full((*mask.shape[:-1], columns), fill_value=True if mask.dtype == torch.bool else 0)
    return torch.cat([mask[..., :at], seen, mask[..., at:]], dim=-1)


def with_rows_seen(mask: Tensor | None, rows: int, at: int) -> Tensor | None:
    """Returns the mask of a sequence into which rows were put before row ``at``; None hides nothing before and after.

    A tower's mask hides padding, from all rows alike: the new rows see what the first one sees.

    Args:
        mask: (B, 1, N, N) boolean (True is seen) or additive, or None.
        rows: How many rows were put in.
        at: Where.
    """
    if mask is None:
        return None
    wide = with_columns_seen(mask, rows, at)
    first = wide[..., :1, :].expand(*wide.shape[:-2], rows, -1)
    return torch.cat([wide[..., :at, :], first, wide[..., at:, :]], dim=-2)
