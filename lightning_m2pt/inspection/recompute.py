"""Attention of one module computed in the open: probabilities, and the output they give, to be compared.

Fast kernels hand no probabilities out. So a module's own forward runs once more on what it was given, with a function
of its library that does: norms, rotations, windows, caps and learned keys are the module's, whatever its family.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.prompts.past_rows import LayerView, additive_mask, seen_keys


@dataclass(frozen=True)
class Recomputed:
    """What follows from one module's queries, keys and values.

    Attributes:
        probabilities: (B, H, R, C), at least float32; the rows are the last R of the columns. One of them for every
            piece that a module cuts its rows into, such as windows, in their order; no row sees another piece.
        output: (B, S, D) or (S, D), what the module must have returned.
    """

    probabilities: tuple[Tensor, ...]
    output: Tensor


Arguments: TypeAlias = tuple[Any, ...]
Recompute: TypeAlias = Callable[[Any, Arguments, dict[str, Any]], Recomputed]
"""Computes a module once more, with the positional and the named arguments that it was given."""
IN_THE_OPEN = "in_the_open"
"""Our name in the library's table of attention functions."""


def recompute_of(attention: nn.Module) -> Recompute:
    """Returns how a module's attention is computed in the open.

    Args:
        attention: Of transformers, if its file has an eager function; torch's, as open_clip's blocks call it; timm's.

    Raises:
        BadInputError: If it is none of these.
    """
    if isinstance(attention, nn.MultiheadAttention):
        return packed_attention
    if hasattr(getattr(attention, "config", None), "_attn_implementation") and eager_function(attention) is not None:
        return library_attention
    if hasattr(attention, "fused_attn") and hasattr(attention, "attn_drop"):
        return unfused_attention
    raise BadInputError(
        f"the attention of {type(attention).__name__} cannot be read",
        where="model.backbone",
        expected="layers of transformers, open_clip or timm that can compute attention step by step",
    )


def eager_function(attention: nn.Module) -> Callable[..., tuple[Tensor, Tensor]] | None:
    """Returns the function of a module's own file that computes attention step by step."""
    return getattr(sys.modules[type(attention).__module__], "eager_attention_forward", None)


def packed_attention(attention: Any, given: Arguments, named: dict[str, Any]) -> Recomputed:  # noqa: ANN401
    """Computes ``nn.MultiheadAttention`` as open_clip's blocks call it: self-attention without a mask."""
    rows: Tensor = given[0] if given else named["query"]
    heads = attention.num_heads
    projected = linear(rows, attention.in_proj_weight, attention.in_proj_bias)
    queries, keys, values = (
        states.view(*states.shape[:2], heads, -1).transpose(1, 2) for states in projected.chunk(3, dim=-1)
    )
    scores = queries @ keys.transpose(2, 3) * queries.shape[-1] ** -0.5
    probabilities = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    attended = (probabilities.to(values.dtype) @ values).transpose(1, 2).reshape(rows.shape)
    return Recomputed((probabilities,), linear(attended, attention.out_proj.weight, attention.out_proj.bias))


def unfused_attention(attention: Any, given: Arguments, named: dict[str, Any]) -> Recomputed:  # noqa: ANN401
    """Computes timm's attention by its own steps; what its dropout is given are the probabilities."""
    found: list[Tensor] = []
    handle = attention.attn_drop.register_forward_pre_hook(lambda _, scores: found.append(scores[0]))
    fused, attention.fused_attn = attention.fused_attn, False
    try:
        output = type(attention).forward(attention, *given, **named)
    finally:
        attention.fused_attn = fused
        handle.remove()
    return Recomputed((found[0].to(torch.promote_types(found[0].dtype, torch.float32)),), output)


def library_attention(attention: Any, given: Arguments, named: dict[str, Any]) -> Recomputed:  # noqa: ANN401
    """Computes an attention of transformers with the eager function of its own file."""
    found: list[Tensor] = []
    with computed_in_the_open(attention, found):
        output = type(attention).forward(attention, *given, **named)
    return Recomputed(tuple(found), output[0] if isinstance(output, tuple) else output)


@contextmanager
def computed_in_the_open(attention: Any, found: list[Tensor]) -> Iterator[None]:  # noqa: ANN401
    """Lets a module compute attention step by step as long as it lasts; ``found`` gets its probabilities."""
    from transformers import AttentionInterface

    def in_the_open(
        module: Any,  # noqa: ANN401
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        view: LayerView | None = None,
        **keywords: Any,  # noqa: ANN401  (the library's interface)
    ) -> tuple[Tensor, Tensor]:
        eager, dtype = eager_function(module), torch.promote_types(query.dtype, torch.float32)
        assert eager is not None
        keys, values = (key, value) if view is None else seen_keys(view, query, key, value)
        mask = attention_mask if view is None else view.mask_for(keywords)
        rows, columns = query.shape[2], keys.shape[2]
        if mask is None and getattr(module, "is_causal", False):
            mask = torch.ones(1, 1, rows, columns, dtype=torch.bool, device=query.device).tril(columns - rows)
        if mask is not None:
            mask = additive_mask(mask, dtype) if mask.dtype == torch.bool else mask.to(dtype)
        output, probabilities = eager(module, query.to(dtype), keys.to(dtype), values.to(dtype), mask, **keywords)
        found.append(probabilities)
        return output.to(query.dtype), probabilities

    config = attention.config
    chosen = config._attn_implementation
    AttentionInterface.register(IN_THE_OPEN, in_the_open)
    config._attn_implementation = IN_THE_OPEN
    try:
        yield
    finally:
        config._attn_implementation = chosen


def refuse_other_output(recomputed: Tensor, output: Tensor, place: str) -> None:
    """Compares the recomputed output with what the module returned.

    Args:
        recomputed: As ``Recomputed.output``.
        output: Of the same shape; its dtype, or float32 if it is longer, as eager functions round to it, sets the
            tolerance: the square root of the rounding unit, relative to the largest number. That is far above the
            rounding of another kernel and far below a prompt that is left out.
        place: Names the layer in the error.

    Raises:
        BadInputError: If they differ: the probabilities are not those the module computes with.
    """
    unit = max(torch.finfo(output.dtype).eps, torch.finfo(torch.float32).eps)
    same_shape = recomputed.shape == output.shape
    if not same_shape or float((recomputed - output).abs().max()) > unit**0.5 * float(output.abs().max()):
        raise BadInputError(
            f"the attention of {place} is not what its queries and keys give",
            where="model.method",
            expected="a method that puts prompts into the sequence or changes weights alone",
            hint="attention maps of this method cannot be shown",
        )
