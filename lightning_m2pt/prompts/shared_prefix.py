"""Keys and values that all samples share, and attention behind them, for Llama-form decoders of transformers.

The library has a place for such keys: its cache. But a layer that recomputes its activations drops the cache, and a
cache is written to. Here a layer gets the shared keys and values as an argument, through the library's own extension
point: an attention function registered under a name of ours, which computes exactly what ``sdpa`` does without them.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

KeysAndValues: TypeAlias = tuple[Tensor, Tensor]
"""(1 or B, H_kv, P, D_head) keys after the rotation, and values of the same shape."""

SDPA_BEHIND_PREFIX = "sdpa_behind_prefix"
"""Name of the attention function in the library's tables."""


def use_prefix_attention(language_model: Any) -> None:  # noqa: ANN401
    """Lets a language model compute attention with ``sdpa_behind_prefix``, if it computes it with ``sdpa`` now."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(SDPA_BEHIND_PREFIX, sdpa_behind_prefix)
    AttentionMaskInterface.register(SDPA_BEHIND_PREFIX, sdpa_mask)
    if language_model.config._attn_implementation == "sdpa":
        language_model.set_attn_implementation(SDPA_BEHIND_PREFIX)


def takes_prefixes(decoder: Any) -> bool:  # noqa: ANN401
    """Tells whether a decoder's layers understand ``prefix``; another attention function would overlook it."""
    return bool(decoder.config._attn_implementation == SDPA_BEHIND_PREFIX)


def sdpa_behind_prefix(
    module: Any,  # noqa: ANN401
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    prefix: KeysAndValues | None = None,
    **keywords: Any,  # noqa: ANN401  (the library's interface: what one attention function needs, all are given)
) -> tuple[Tensor, None]:
    """Attention of rows over shared keys and values and over themselves.

    Args:
        module: The library's attention module.
        query: (B, H, S, D_head).
        key: (B, H_kv, S, D_head).
        value: (B, H_kv, S, D_head).
        attention_mask: With a prefix: None lets every row see the prefix, itself and the rows before it. A mask
            (B, 1, S, P) says that the rows' own keys are among the prefix's, and which of these each row sees.
        prefix: P keys and values in front of the rows' own.
        keywords: What the library hands on, such as ``scaling``.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if prefix is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **keywords)  # type: ignore[no-any-return]
    if attention_mask is not None:
        keys, values = (states.expand(len(query), -1, -1, -1) for states in prefix)
        return sdpa_attention_forward(module, query, keys, values, attention_mask, **keywords)  # type: ignore[no-any-return]
    keys, values = concatenated(prefix, (key, value))
    # The kernels' causal triangle begins at the upper left: empty queries in front move it to the lower right. They
    # cost less than a mask, which no kernel can skip blocks by.
    length = prefix[0].shape[2]
    output, _ = sdpa_attention_forward(module, pad(query, (0, 0, length, 0)), keys, values, None, **keywords)
    return output[:, length:], None


def concatenated(first: KeysAndValues | None, second: KeysAndValues) -> KeysAndValues:
    """Returns the keys and values of both, in this order, for as many samples as the second has."""
    if first is None:
        return second
    keys, values = (
        torch.cat([states.expand(len(behind), -1, -1, -1), behind], dim=2)
        for states, behind in zip(first, second, strict=True)
    )
    return keys, values


def keys_and_values(block: Any, rows: Tensor, position_embeddings: tuple[Tensor, Tensor]) -> KeysAndValues:  # noqa: ANN401
    """Returns what a decoder layer's attention reads of rows.

    Parts of the layer are called outside its own forward: a strategy that has whole weights only while that runs, as
    FSDP has with every layer wrapped, cannot take this way.

    Args:
        block: A decoder layer; its projections are called, so whatever stands in for them takes part.
        rows: (B, S, D), the layer's input.
        position_embeddings: Rotary cosine and sine of the rows.
    """
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    attention = block.self_attn
    states = block.input_layernorm(rows)
    shape = (*rows.shape[:2], -1, attention.head_dim)
    keys = attention.k_proj(states).view(shape).transpose(1, 2)
    values = attention.v_proj(states).view(shape).transpose(1, 2)
    _, keys = apply_rotary_pos_emb(keys, keys, *position_embeddings)
    return keys, values


def rotary_embedding(decoder: Any, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Returns rotary cosine and sine, in the rows' dtype, at positions (1 or B, S)."""
    cosine, sine = decoder.rotary_emb(rows, position_ids=positions)
    return cosine, sine


def refuse_recomputing(decoder: Any) -> None:  # noqa: ANN401
    """Refuses a decoder whose layers would drop the cache that they are given, and say so in a log at most.

    Raises:
        RuntimeError: If its layers recompute their activations now.
    """
    layer = decoder.layers[0]
    if layer.training and layer.gradient_checkpointing:
        raise RuntimeError("layers that recompute their activations drop the cache: call eval() first")


def cache_with_prefix(decoder: Any, prefix: Sequence[KeysAndValues], batch_size: int) -> Any:  # noqa: ANN401
    """Returns a fresh cache of the library that begins with a prefix.

    Args:
        decoder: The decoder that will read it.
        prefix: (1, H_kv, P, D_head) keys and values for every layer.
        batch_size: B, to which they are expanded without copying.

    Returns:
        A ``DynamicCache`` of length P. A forward pass writes into it: never use it twice.
    """
    from transformers import DynamicCache

    refuse_recomputing(decoder)
    cache = DynamicCache(config=decoder.config)
    for layer, pair in enumerate(prefix):
        keys, values = (states.expand(batch_size, -1, -1, -1) for states in pair)
        cache.update(keys, values, layer)
    return cache
