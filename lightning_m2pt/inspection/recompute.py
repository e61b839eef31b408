"""Attention of one module computed in the open: probabilities, and the output they give, to be compared."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lightning_m2pt.errors import BadInputError


@dataclass(frozen=True)
class Recomputed:
    """What follows from one module's queries, keys and values.

    Attributes:
        probabilities: (B, H, R, C) float32, or float64 where the model computes in it; the rows are the last R of the
            columns.
        output: (B, S, D), what the module must have returned.
    """

    probabilities: Tensor
    output: Tensor


def softmax_of(scores: Tensor) -> Tensor:
    """Returns the softmax over columns, at least in float32 as the libraries' eager attention computes it."""
    return scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))


def vision_attention(attention: Any, rows: Tensor) -> Recomputed:  # noqa: ANN401
    """Recomputes ``nn.MultiheadAttention`` as open_clip's blocks call it: self-attention without a mask.

    Args:
        attention: The module; its tensors are read as they stand.
        rows: (B, S, D), already through the block's first norm.
    """
    heads = attention.num_heads
    projected = linear(rows, attention.in_proj_weight, attention.in_proj_bias)
    queries, keys, values = (
        states.view(*states.shape[:2], heads, -1).transpose(1, 2) for states in projected.chunk(3, dim=-1)
    )
    probabilities = softmax_of(queries @ keys.transpose(2, 3) * queries.shape[-1] ** -0.5)
    attended = (probabilities.to(values.dtype) @ values).transpose(1, 2).reshape(rows.shape)
    return Recomputed(probabilities, linear(attended, attention.out_proj.weight, attention.out_proj.bias))


def tower_attention(attention: Any, rows: Tensor, mask: Tensor | None) -> Recomputed:  # noqa: ANN401
    """Recomputes the attention of a tower's block, in whichever of three forms its library writes it.

    Args:
        attention: ``nn.MultiheadAttention`` (open_clip); a module with ``q_proj``, ``k_proj`` and ``v_proj``
            (transformers); or one with all three in ``qkv`` (timm).
        rows: (B, S, D), already through the block's first norm.
        mask: The library's mask, (B, 1, S, S) boolean (True = visible) or additive, or None.

    Raises:
        BadInputError: If it is of another form.
    """
    if isinstance(attention, nn.MultiheadAttention):
        return vision_attention(attention, rows)
    split = (*rows.shape[:2], -1, getattr(attention, "head_dim", 1))
    if hasattr(attention, "q_proj"):
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        queries, keys, values = (project(rows).view(split).transpose(1, 2) for project in projections)
        queries = queries * (attention.scale if hasattr(attention, "scale") else attention.scaling)
        behind = attention.out_proj if hasattr(attention, "out_proj") else attention.o_proj
    elif hasattr(attention, "qkv"):
        queries, keys, values = (each.view(split).transpose(1, 2) for each in attention.qkv(rows).chunk(3, dim=-1))
        queries, keys = attention.q_norm(queries) * attention.scale, attention.k_norm(keys)
        behind = nn.Sequential(attention.norm, attention.proj)
    else:
        raise BadInputError(
            f"the attention of {type(attention).__name__} cannot be read",
            where="model.backbone",
            expected="a tower of open_clip, transformers or timm",
        )
    scores = queries @ keys.transpose(2, 3)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    probabilities = softmax_of(scores)
    attended = (probabilities.to(values.dtype) @ values).transpose(1, 2).reshape(*rows.shape[:2], -1)
    return Recomputed(probabilities, behind(attended))


def language_attention(
    attention: Any,  # noqa: ANN401
    rows: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    mask: Tensor | None,
    learned: tuple[Tensor, Tensor] | None = None,
) -> Recomputed:
    """Recomputes a Llama-form attention of transformers; grouped heads are fine.

    Args:
        attention: The module; its projections are called, so whatever stands in for them takes part.
        rows: (B, S, D), already through the layer's first norm.
        position_embeddings: Rotary cosine and sine of the rows.
        mask: The library's mask: None for plain causal, else (B or 1, 1, S, C) boolean (True = visible) or additive.
        learned: Keys and values in front of the layer's own, each (1, H_kv, P, D_head); C = P + S.
    """
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

    shape = (*rows.shape[:2], -1, attention.head_dim)
    queries, keys, values = (
        project(rows).view(shape).transpose(1, 2) for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    queries, keys = apply_rotary_pos_emb(queries, keys, *position_embeddings)
    if learned is not None:
        keys, values = (
            torch.cat([first.expand(len(rows), -1, -1, -1), own], dim=2)
            for first, own in zip(learned, (keys, values), strict=True)
        )
    keys, values = (repeat_kv(states, attention.num_key_value_groups) for states in (keys, values))
    scores = queries @ keys.transpose(2, 3) * attention.scaling
    if mask is None:
        in_front = scores.shape[-1] - scores.shape[-2]
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril(diagonal=in_front)
        scores = scores.masked_fill(~visible, float("-inf"))
    elif mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, float("-inf"))
    else:
        scores = scores + mask
    probabilities = softmax_of(scores)
    attended = (probabilities.to(values.dtype) @ values).transpose(1, 2).reshape(*rows.shape[:2], -1)
    return Recomputed(probabilities, attention.o_proj(attended))


def refuse_other_output(recomputed: Tensor, output: Tensor, place: str) -> None:
    """Compares the recomputed output with what the module returned.

    Args:
        recomputed: (B, S, D).
        output: (B, S, D); its dtype sets the tolerance: the square root of its rounding unit, relative to its largest
            number. That is far above the rounding of another kernel and far below a prompt that is left out.
        place: Names the layer in the error.

    Raises:
        BadInputError: If they differ: the probabilities are not those the model computes with.
    """
    tolerance = torch.finfo(output.dtype).eps ** 0.5
    same_shape = recomputed.shape == output.shape
    if not same_shape or float((recomputed - output).abs().max()) > tolerance * float(output.abs().max()):
        raise BadInputError(
            f"the attention of {place} is not what its queries and keys give",
            where="model.method",
            expected="a method that puts prompts into the sequence or changes weights alone",
            hint="attention maps of this method cannot be shown",
        )
