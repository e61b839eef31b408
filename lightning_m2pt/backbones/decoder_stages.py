"""A Llama-form decoder run in stages: each appends rows to what a cache holds already.

Layers are called one by one, so that whatever methods put into them takes part. Masks are always given: without one,
attention kernels anchor a causal triangle at the first key, not at the first new row.
"""

from typing import Any

import torch
from torch import Tensor


def extend(
    decoder: Any,  # noqa: ANN401  (a Llama-form decoder of transformers)
    cache: Any,  # noqa: ANN401
    embeddings: Tensor,
    positions: Tensor,
    visible: Tensor,
    wanted: Tensor | None = None,
) -> Tensor:
    """Runs N new rows of every sample and appends their keys and values to the cache.

    Args:
        decoder: ``layers``, ``rotary_emb`` and ``norm``; grouped heads are fine.
        cache: A ``DynamicCache`` of B samples with K rows; it is written to.
        embeddings: (B, N, D) new rows.
        positions: (B or 1, N) their rotary positions.
        visible: (B or 1, N, K + N) bool, which cached and new rows each new row sees; at least one each.
        wanted: (B, W) the new rows whose output is needed, W may be 0; None: all. The last layer computes keys and
            values of all rows, and everything else of these alone.

    Returns:
        (B, W or N, D) after the final norm.
    """
    mask = additive(visible, embeddings.dtype)
    rotation = decoder.rotary_emb(embeddings, position_ids=positions)
    *blocks, last = decoder.layers
    states = embeddings
    for block in blocks:
        states = run_block(block, states, cache, positions, mask, rotation)
    if wanted is None:
        states = run_block(last, states, cache, positions, mask, rotation)
    else:
        states = run_on_wanted_rows(last, states, cache, positions, mask, rotation, wanted)
    return decoder.norm(states)  # type: ignore[no-any-return]


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns (B or 1, 1, N, K + N): 0 where a row is seen, the type's lowest number where it is not.

    Every attention kernel that takes masks at all takes such a one, and the library passes it on as it is.
    """
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def run_block(
    block: Any,  # noqa: ANN401
    states: Tensor,
    cache: Any,  # noqa: ANN401
    positions: Tensor,
    mask: Tensor,
    rotation: tuple[Tensor, Tensor],
) -> Tensor:
    """Returns a layer's output for its new rows."""
    return block(  # type: ignore[no-any-return]
        states,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        position_embeddings=rotation,
    )


def run_on_wanted_rows(
    block: Any,  # noqa: ANN401
    states: Tensor,
    cache: Any,  # noqa: ANN401
    positions: Tensor,
    mask: Tensor,
    rotation: tuple[Tensor, Tensor],
    wanted: Tensor,
) -> Tensor:
    """Returns the last layer's output for the wanted rows (B, W); the cache gets the keys and values of all rows.

    The layer itself appends the wanted rows' keys and values a second time: they are hidden, and taken away again.
    """
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    attention = block.self_attn
    normed = block.input_layernorm(states)
    shape = (*states.shape[:2], -1, attention.head_dim)
    keys = attention.k_proj(normed).view(shape).transpose(1, 2)
    values = attention.v_proj(normed).view(shape).transpose(1, 2)
    _, keys = apply_rotary_pos_emb(keys, keys, *rotation)
    keys, values = cache.update(keys, values, attention.layer_idx)
    samples, number = wanted.shape
    if not number:
        return states[:, :0]
    of_sample = wanted[..., None]
    seen = mask.expand(samples, -1, -1, -1).gather(2, of_sample[:, None].expand(-1, -1, -1, mask.shape[-1]))
    hidden = seen.new_full((1,), torch.finfo(seen.dtype).min).expand(samples, 1, number, number)
    cosine, sine = (
        table.expand(samples, -1, -1).gather(1, of_sample.expand(-1, -1, table.shape[-1])) for table in rotation
    )
    output = run_block(
        block,
        states.gather(1, of_sample.expand(-1, -1, states.shape[-1])),
        cache,
        positions.expand(samples, -1).gather(1, wanted),
        torch.cat([seen, hidden], dim=3),
        (cosine, sine),
    )
    layer = cache.layers[attention.layer_idx]
    layer.keys, layer.values = keys, values
    return output


def empty_cache(decoder: Any) -> Any:  # noqa: ANN401
    """Returns a cache without rows, in the form that the decoder's configuration asks for."""
    from transformers import DynamicCache

    return DynamicCache(config=decoder.config)


def repeated(decoder: Any, cache: Any, samples: int) -> Any:  # noqa: ANN401
    """Returns a fresh cache of B samples that begins with what a cache of one sample holds; that one stays as it is.

    Args:
        decoder: Its configuration decides the cache's form.
        cache: A ``DynamicCache`` of one sample, possibly empty.
        samples: B.
    """
    copy = empty_cache(decoder)
    for number, layer in enumerate(cache.layers):
        if layer.get_seq_length():
            copy.update(layer.keys.expand(samples, -1, -1, -1), layer.values.expand(samples, -1, -1, -1), number)
    return copy
