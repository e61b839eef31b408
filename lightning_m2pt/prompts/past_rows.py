"""Keys and values of earlier rows, and the attention function through which a decoder's layers look at them.

The library has a place for such keys: its cache. But a layer that recomputes its activations drops the cache, and a
cache of a layer with a window forgets. Here a layer gets them as an argument, through the library's own extension
point: an attention function registered under a name of ours, which without them computes what the library's does. What
it is given has been through the model's own norms, rotations and projections, and so have the keys that it reads off.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_m2pt.prompts.plain_attention import later_keys_hidden, plain_attention, prefers_products

KeysAndValues: TypeAlias = tuple[Tensor, Tensor]
"""(1 or B, H_kv, K, D_head) keys after the rotation, and values of the same shape."""

OVER_PAST_ROWS = {"sdpa": "over_past_rows", "eager": "over_past_rows_eagerly"}
"""The library's functions that ours are built upon, and our names in its tables. Gemma-2 refuses names of kernels."""


@dataclass(frozen=True)
class PastRows:
    """What a decoder's layers keep of K rows: learned ones, and ones that have run.

    Attributes:
        layers: Their keys and values in every layer; empty if there are none.
        positions: (1 or B, K) int64.
        placeholders: Layers below the first of these two numbers see none of so many rows as the second says, which
            stand behind the learned keys: prompt rows are put in their place by that layer.
    """

    layers: Sequence[KeysAndValues]
    positions: Tensor
    placeholders: tuple[int, slice] = (0, slice(0))

    @property
    def length(self) -> int:
        """K."""
        return self.positions.shape[1]

    def of(self, samples: Tensor) -> "PastRows":
        """Returns the rows of these samples (N,) alone."""
        layers = [(keys[samples], values[samples]) for keys, values in self.layers]
        positions = self.positions if len(self.positions) == 1 else self.positions[samples]
        return PastRows(layers, positions, self.placeholders)


def no_rows(device: torch.device) -> PastRows:
    """Returns what there is before any row has run."""
    return PastRows((), torch.zeros(1, 0, dtype=torch.long, device=device))


@dataclass(frozen=True)
class LayerView:
    """What one layer's attention is told about the rows of a pass.

    Attributes:
        past: Keys and values in front of the rows' own, or None.
        mask: (B or 1, 1, N, K) to add to the scores, K counting past and own rows; None: every row sees the past,
            itself and the rows before it.
        windowed: The same for a layer with a window.
        stores: Gets the keys and values of past and own rows.
        only_reads: The layer is left as soon as its keys and values are known.
        holds_own: The rows' own keys and values are among the past's already.
    """

    past: KeysAndValues | None
    mask: Tensor | None = None
    windowed: Tensor | None = None
    stores: list[KeysAndValues] | None = None
    only_reads: bool = False
    holds_own: bool = False

    def mask_for(self, keywords: Mapping[str, Any]) -> Tensor | None:
        """Returns the mask of a layer that the library calls with these keywords."""
        return self.mask if keywords.get("sliding_window") is None else self.windowed


class KeysRead(Exception):
    """Leaves a layer whose keys and values are known."""


def use_past_rows(decoder: Any) -> None:  # noqa: ANN401
    """Lets a decoder that computes attention with ``sdpa`` or ``eager`` do so over past rows."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask

    for name, function, mask in (("sdpa", over_past_rows, sdpa_mask), ("eager", over_past_rows_eagerly, eager_mask)):
        AttentionInterface.register(OVER_PAST_ROWS[name], function)
        AttentionMaskInterface.register(OVER_PAST_ROWS[name], mask)
    own = OVER_PAST_ROWS.get(decoder.config._attn_implementation)
    if own is not None:
        decoder.set_attn_implementation(own)


def library_name(attention: str) -> str:
    """Returns the name of the library's function that an attention function is, or is built upon."""
    return next((name for name, own in OVER_PAST_ROWS.items() if own == attention), attention)


def takes_past_rows(decoder: Any) -> bool:  # noqa: ANN401
    """Tells whether a decoder's layers understand a ``LayerView``; another attention function would overlook it."""
    return decoder.config._attn_implementation in OVER_PAST_ROWS.values()


def over_past_rows(
    module: Any,  # noqa: ANN401
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    view: LayerView | None = None,
    **keywords: Any,  # noqa: ANN401  (the library's interface: what one attention function needs, all are given)
) -> tuple[Tensor, Tensor | None]:
    """Attention of rows over past rows and over themselves.

    Args:
        module: The library's attention module.
        query: (B, H, N, D_head).
        key: (B, H_kv, N, D_head).
        value: (B, H_kv, N, D_head).
        attention_mask: The library's mask, which counts only without a view.
        view: What the rows see; None: what the library says.
        keywords: What the library hands on, such as ``scaling``.

    Raises:
        KeysRead: If nothing but the keys and values is wanted.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if view is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **keywords)  # type: ignore[no-any-return]
    keys, values = seen_keys(view, query, key, value)
    rows = query.shape[2]
    if not rows:
        return query.transpose(1, 2), None
    mask = view.mask_for(keywords)
    if known_to_products(keywords, is_causal=True) and prefers_products(query, keys, keywords.get("dropout")):
        seen = later_keys_hidden(rows, keys.shape[2], query.device) if mask is None else mask
        return plain_attention(query, keys, values, seen, keywords["scaling"]), None
    # The kernels' causal triangle begins at the upper left: empty queries in front move it to the lower right. They
    # cost less than a mask, which no kernel can skip blocks by.
    empty = keys.shape[2] - rows if mask is None and rows > 1 else 0
    padded = pad(query, (0, 0, empty, 0)) if empty else query
    output, _ = sdpa_attention_forward(module, padded, keys, values, mask, **keywords)
    return output[:, empty:] if empty else output, None


def known_to_products(keywords: Mapping[str, Any], *, is_causal: bool) -> bool:
    """Tells whether the library asks for nothing that ``plain_attention`` would overlook, such as a bias or a cap."""
    as_said = keywords.get("is_causal") in (None, is_causal)
    others = ("position_bias", "softcap", "s_aux")
    return as_said and keywords.get("scaling") is not None and all(keywords.get(name) is None for name in others)


def over_past_rows_eagerly(
    module: Any,  # noqa: ANN401
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    view: LayerView | None = None,
    **keywords: Any,  # noqa: ANN401
) -> tuple[Tensor, Tensor | None]:
    """The same with the eager function of the model's own file, which also caps scores where the model does."""
    eager = sys.modules[type(module).__module__].eager_attention_forward
    if view is None:
        return eager(module, query, key, value, attention_mask, **keywords)  # type: ignore[no-any-return]
    keys, values = seen_keys(view, query, key, value)
    rows, columns = query.shape[2], keys.shape[2]
    if not rows:
        return query.transpose(1, 2), None
    mask = view.mask_for(keywords)
    if mask is None:
        causal = torch.ones(1, 1, rows, columns, dtype=torch.bool, device=query.device).tril(columns - rows)
        mask = additive_mask(causal, query.dtype)
    return eager(module, query, keys, values, mask, **keywords)  # type: ignore[no-any-return]


def seen_keys(view: LayerView, query: Tensor, key: Tensor, value: Tensor) -> KeysAndValues:
    """Returns past and own keys and values (B, H_kv, K, D_head), stored where the view says so.

    Raises:
        KeysRead: If nothing else is wanted.
    """
    together = view.past if view.holds_own and view.past is not None else concatenated(view.past, (key, value))
    if view.stores is not None:
        view.stores.append(together)
    if view.only_reads:
        raise KeysRead
    keys, values = (states.expand(len(query), -1, -1, -1) for states in together)
    return keys, values


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns 0 where a row is seen and the type's lowest number where it is not, in the shape of ``visible``."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)


def concatenated(first: KeysAndValues | None, second: KeysAndValues) -> KeysAndValues:
    """Returns the keys and values of both, in this order, for as many samples as the second has."""
    if first is None:
        return second
    keys, values = (
        torch.cat([states.expand(len(behind), -1, -1, -1), behind], dim=2)
        for states, behind in zip(first, second, strict=True)
    )
    return keys, values
