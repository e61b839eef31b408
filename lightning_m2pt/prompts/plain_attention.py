"""Attention as matrix products around a softmax, for bfloat16 on a CPU.

torch's fused kernel computes the same without keeping what it shares out, which saves memory. But in bfloat16 on a CPU
its backward pass takes two to six times as long as these products, by length. They follow its roundings: scores and
their softmax are float32, and only then the shares are rounded. With scores rounded to bfloat16, as transformers' eager
functions have them, gradients of a sharp attention would be five times as far off
(`tests/prompts/test_plain_attention.py`).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

MOST_KEPT = 32 * 2**20
"""Bytes that one call may keep for its backward pass.

Measured on an AMD EPYC (AVX512-BF16, one thread, nine heads of 64 over three of keys), forward and backward, against
the fused kernel: 1.9 MB 9 against 32 ms, 9.8 MB 43 against 122 ms, 23 MB 97 against 187 ms, 47 MB 230 against 343 ms.
Behind this bound less is won than the memory is worth.
"""
AT_A_TIME = 2 * 2**20
"""Bytes of float32 scores that are worked on at once: of more, caches lose what the next operation needs."""


def prefers_products(query: Tensor, key: Tensor, dropout: float | None) -> bool:
    """Tells whether ``plain_attention`` is faster than torch's fused kernel, and computes what is wanted.

    Compiled layers keep the fused kernel: how the work is cut follows from lengths, and each would be a graph.

    Args:
        query: (B, H, N, D_head).
        key: (B, H_kv, K, D_head).
        dropout: The share of attention that is dropped.
    """
    if query.dtype != torch.bfloat16 or query.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    samples, heads, rows, _ = query.shape
    return rows > 1 and not dropout and 0 < kept_bytes(samples, heads, rows, key.shape[2]) <= MOST_KEPT


def kept_bytes(samples: int, heads: int, rows: int, keys: int) -> int:
    """Returns what one call keeps besides queries, keys and values: one bfloat16 number for each row and key."""
    return samples * heads * rows * keys * torch.bfloat16.itemsize


def plain_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """Attention of rows over keys, by groups of heads.

    Args:
        query: (B, H, N, D_head).
        key: (B, H_kv, K, D_head); H is a multiple of H_kv, and no key is copied for the heads that share it.
        value: (B, H_kv, K, D_value).
        mask: (B or 1, 1, N, K) to add to the scores; None: every row sees every key.
        scaling: Factor of the scores.

    Returns:
        (B, N, H, D_value), as the library's attention functions do.
    """
    attended: Tensor = Products.apply(query, key, value, mask, scaling)  # type: ignore[no-untyped-call]
    return attended.transpose(1, 2)


def later_keys_hidden(rows: int, keys: int, device: torch.device) -> Tensor:
    """Returns (1, 1, N, K) float32: minus infinity where row n would see one of the last N - 1 - n keys, else 0."""
    hidden = torch.full((rows, keys), float("-inf"), device=device)
    return hidden.triu(1 + keys - rows)[None, None]


class Products(torch.autograd.Function):
    """The products and the softmax; the backward pass takes the rounded shares."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float,
    ) -> Tensor:
        """Returns (B, H, N, D_value)."""
        samples, heads, rows, _ = query.shape
        groups, keys = key.shape[1:3]
        exact = torch.promote_types(query.dtype, torch.float32)
        shares = query.new_empty(samples, groups, heads // groups * rows, keys)
        with torch.autocast(query.device.type, enabled=False):  # it would round the scores
            for some in pieces(samples, heads * rows * keys):
                asking = by_group(query[some], groups).to(exact) * scaling
                scores = (asking @ key[some].to(exact).transpose(2, 3)).view(len(asking), groups, -1, rows, keys)
                if mask is not None:
                    scores += (mask if len(mask) == 1 else mask[some])[:, :, None]
                shares[some] = scores.softmax(dim=-1).view(len(asking), groups, -1, keys)
            attended = shares @ value
        ctx.save_for_backward(query, key, value, shares)
        ctx.scaling = scaling
        return attended.view(samples, heads, rows, -1)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        gradient: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Returns the gradients of queries, keys and values."""
        query, key, value, shares = ctx.saved_tensors
        groups = key.shape[1]
        above, asking = by_group(gradient, groups), by_group(query, groups)
        of_query, of_key = torch.empty_like(asking), torch.empty_like(key)
        for some in pieces(len(query), shares[0].numel()):
            of_shares = above[some] @ value[some].transpose(2, 3)
            # What torch's softmax calls in its own backward pass: shares times what is above their weighted mean.
            of_scores = torch.ops.aten._softmax_backward_data(of_shares, shares[some], -1, shares.dtype)
            of_query[some] = of_scores @ key[some]
            of_key[some] = of_scores.transpose(2, 3) @ asking[some]
        of_value = shares.transpose(2, 3) @ above
        return (of_query * ctx.scaling).view(query.shape), of_key * ctx.scaling, of_value, None, None


def by_group(states: Tensor, groups: int) -> Tensor:
    """Returns states (B, H, N, D) as (B, G, H/G * N, D): the rows of the heads that share keys, one after the other."""
    samples, _, _, width = states.shape
    return states.reshape(samples, groups, -1, width)


def pieces(samples: int, scores: int) -> list[slice]:
    """Cuts samples of so many scores each into parts that are worked on at once."""
    together = max(1, AT_A_TIME // (scores * torch.float32.itemsize))
    return [slice(start, start + together) for start in range(0, samples, together)]
