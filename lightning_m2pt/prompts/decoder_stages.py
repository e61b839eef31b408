"""A Llama-form decoder run in stages: each appends rows to what a cache holds already.

Layers are called one by one, so that whatever methods put into them takes part. Masks are always given: without one,
attention kernels anchor a causal triangle at the first key, not at the first new row.
"""

from typing import Any

import torch
from torch import Tensor

from lightning_m2pt.prompts.shared_prefix import keys_and_values, rotary_embedding


def append_rows(
    decoder: Any,  # noqa: ANN401  (a Llama-form decoder of transformers)
    cache: Any,  # noqa: ANN401
    embeddings: Tensor,
    positions: Tensor,
    visible: Tensor,
    wanted: Tensor | None = None,
) -> Tensor:
    """Runs N new rows of every sample and appends their keys and values to the cache.

    Args:
        decoder: A Llama-form decoder whose layers take prefixes.
        cache: A ``DynamicCache`` of B samples with K rows; it is written to.
        embeddings: (B, N, D) new rows.
        positions: (B or 1, N) their rotary positions.
        visible: (B or 1, N, K + N) bool, which cached and new rows each new row sees; at least one each.
        wanted: (B, W) the new rows whose output is needed, W may be 0; None: all. The last layer computes keys and
            values of all rows, and everything else of these alone.

    Returns:
        (B, W or N, D) after the final norm.
    """
    mask = additive_mask(visible, embeddings.dtype)
    rotation = rotary_embedding(decoder, embeddings, positions)
    *blocks, last = decoder.layers
    states = embeddings
    for block in blocks:
        states = run_block(block, states, cache, mask, rotation)
    if wanted is None:
        states = run_block(last, states, cache, mask, rotation)
    else:
        states = run_on_wanted_rows(last, states, cache, mask, rotation, wanted)
    return decoder.norm(states)  # type: ignore[no-any-return]


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns (B or 1, 1, N, K + N): 0 where a row is seen, the type's lowest number where it is not.

    The library takes a mask of four dimensions as it is, and every attention kernel that takes masks at all takes one
    that is added to the scores.
    """
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def run_block(
    block: Any,  # noqa: ANN401
    states: Tensor,
    cache: Any,  # noqa: ANN401
    mask: Tensor,
    rotation: tuple[Tensor, Tensor],
) -> Tensor:
    """Returns a layer's output for its new rows."""
    return block(  # type: ignore[no-any-return]
        states,
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
        position_embeddings=rotation,
    )


def run_on_wanted_rows(
    block: Any,  # noqa: ANN401
    states: Tensor,
    cache: Any,  # noqa: ANN401
    mask: Tensor,
    rotation: tuple[Tensor, Tensor],
    wanted: Tensor,
) -> Tensor:
    """Returns the last layer's output for the wanted rows (B, W); the cache gets the keys and values of all rows."""
    everything = cache.update(*keys_and_values(block, states, rotation), block.self_attn.layer_idx)
    if not wanted.shape[1]:
        return states[:, :0]
    samples, of_sample = len(states), wanted[..., None]

    def chosen(rows: Tensor) -> Tensor:
        return rows.expand(samples, -1, -1).gather(1, of_sample.expand(-1, -1, rows.shape[-1]))

    cosine, sine = rotation
    return block(  # type: ignore[no-any-return]
        chosen(states),
        attention_mask=chosen(mask[:, 0])[:, None],
        position_embeddings=(chosen(cosine), chosen(sine)),
        prefix=everything,
    )
