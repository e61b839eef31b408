"""The prefix path of a vision tower: each block's prompt keys and values, computed once per batch.

A deep prompt's rows are replaced at every layer, so other rows meet them only as keys and values that depend on the
prompt alone. Exact, forward and backward, when every used layer has rows of its own; otherwise the token path is used.
open_clip's blocks have no attention interface: here their attention is computed with their own weights.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from lightning_m2pt.prompts.plain_attention import plain_attention, prefers_products


def is_foldable(rows: Sequence[Tensor | None]) -> bool:
    """Tells whether every layer has rows of its own, so that no prompt row ever survives a layer."""
    return all(candidate is not None for candidate in rows)


class BlockRows:
    """The prompt rows (1, P, D) of one block in the pass that last ran.

    Every block has an object of its own and knows no number: a compiled block that reads its number shares its graph
    with no other, and torch stops compiling after eight.
    """

    rows: Tensor | None = None


class VisionPrefixPath:
    """Prompt keys and values in a tower of open_clip's residual attention blocks.

    Each block's ``attention`` is shadowed by an instance attribute; deleting it restores the library's method.
    """

    def __init__(self) -> None:
        self._rows: Sequence[Tensor | None] = ()
        self._blocks: list[tuple[nn.Module, BlockRows]] = []

    @property
    def rows(self) -> Sequence[Tensor | None]:
        """The rows of every block; empty if blocks shall compute as the library wrote them."""
        return self._rows

    @rows.setter
    def rows(self, rows: Sequence[Tensor | None]) -> None:
        """Gives every block its own."""
        self._rows = rows
        for layer, (_, place) in enumerate(self._blocks):
            place.rows = rows[layer] if rows else None

    def install(self, blocks: Sequence[nn.Module]) -> None:
        """Shadows every block's attention."""
        for block in blocks:
            self._blocks.append((block, BlockRows()))
            block.attention = attention_behind(*self._blocks[-1])  # type: ignore[assignment]

    def remove(self) -> None:
        """Gives the blocks their own attention back."""
        for block, _ in self._blocks:
            del block.attention
        self._blocks.clear()
        self.rows = ()


def attention_behind(block: Any, place: BlockRows) -> Callable[..., Tensor]:  # noqa: ANN401
    """Returns what stands in for an open_clip block's ``attention``."""

    def attention(
        q_x: Tensor, k_x: Tensor | None = None, v_x: Tensor | None = None, attn_mask: Tensor | None = None
    ) -> Tensor:
        if place.rows is None:
            return type(block).attention(block, q_x, k_x, v_x, attn_mask)  # type: ignore[no-any-return]
        return attend_with_prefix(block, q_x, place.rows)

    return attention


def attend_with_prefix(block: Any, hidden_states: Tensor, rows: Tensor) -> Tensor:  # noqa: ANN401
    """Self-attention of the sequence over itself and the prompt rows.

    Args:
        block: An open_clip ``ResidualAttentionBlock``.
        hidden_states: (B, S, D), already through ``ln_1``.
        rows: (1, P, D) prompt rows, not yet through ``ln_1`` (the block's own ``k_x`` and ``v_x`` skip that norm).

    Returns:
        (B, S, D).
    """
    weight, bias, width = block.attn.in_proj_weight, block.attn.in_proj_bias, hidden_states.shape[-1]
    queries, keys, values = linear(hidden_states, weight, bias).chunk(3, dim=-1)
    prompt = block.ln_1(rows.to(hidden_states.dtype))
    prompt_keys, prompt_values = linear(prompt, weight[width:], bias[width:]).chunk(2, dim=-1)
    batch_size, heads = hidden_states.shape[0], block.attn.num_heads

    def split_heads(states: Tensor) -> Tensor:
        return states.view(states.shape[0], states.shape[1], heads, -1).transpose(1, 2)

    def with_prefix(prefix: Tensor, states: Tensor) -> Tensor:
        return torch.cat([split_heads(prefix).expand(batch_size, -1, -1, -1), split_heads(states)], dim=2)

    asking, all_keys, all_values = (
        split_heads(queries),
        with_prefix(prompt_keys, keys),
        with_prefix(prompt_values, values),
    )
    if prefers_products(asking, all_keys, None):
        attended = plain_attention(asking, all_keys, all_values, None, asking.shape[-1] ** -0.5)
    else:
        attended = scaled_dot_product_attention(asking, all_keys, all_values).transpose(1, 2)
    return block.attn.out_proj(attended.reshape(hidden_states.shape))  # type: ignore[no-any-return]
