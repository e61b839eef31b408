"""A decoder's layers run behind shared keys and values: the prefix path of training.

Rows that all samples of a batch have alike can run once for all of them, and the last layer can be asked for single
rows only. Exact: a causal row depends on no row behind it, and what the last layer would make of other rows reaches no
loss.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_m2pt.prompts.shared_prefix import KeysAndValues, concatenated, keys_and_values, rotary_embedding


def run_behind_prefix(
    decoder: Any,  # noqa: ANN401
    prefix: Sequence[KeysAndValues | None],
    rows: Tensor,
    shared: int = 0,
    wanted: Tensor | None = None,
) -> Tensor:
    """Runs all layers and the final norm.

    Args:
        decoder: A Llama-form decoder whose layers take prefixes.
        prefix: For every layer P keys and values in front of all rows, or None; their positions are 0 to P - 1.
        rows: (B, S, D).
        shared: How many of the first rows are alike in all samples and shall run once.
        wanted: (B, S) bool, at least one and none of them among the shared: the rows whose outputs are needed.

    Returns:
        (N, D) after the final norm, sample by sample: the N wanted rows. Without ``wanted`` (B, S - shared, D), all
        that are not shared.
    """
    first = prefix[0][0].shape[2] if prefix[0] is not None else 0
    places = torch.arange(rows.shape[1], device=rows.device)
    positions = first + places[None]
    if wanted is not None:
        length = 1 + int((wanted.any(dim=0) * places).max())
        rows, wanted, positions = rows[:, :length], wanted[:, shared:length], positions[:, :length]
    common, own = rows[:1, :shared], rows[:, shared:]
    of_common, of_own = (
        rotary_embedding(decoder, rows, positions[:, :shared]),
        rotary_embedding(decoder, rows, positions[:, shared:]),
    )
    *blocks, last = decoder.layers
    for block, in_front in zip(blocks, prefix, strict=False):
        behind = concatenated(in_front, keys_and_values(block, common, of_common)) if shared else in_front
        common = block(common, position_embeddings=of_common, prefix=in_front) if shared else common
        own = block(own, position_embeddings=of_own, prefix=behind)
    behind = concatenated(prefix[-1], keys_and_values(last, common, of_common)) if shared else prefix[-1]
    if wanted is None:
        return decoder.norm(last(own, position_embeddings=of_own, prefix=behind))  # type: ignore[no-any-return]
    return decoder.norm(wanted_rows(last, behind, own, of_own, wanted))  # type: ignore[no-any-return]


def wanted_rows(
    block: Any,  # noqa: ANN401
    prefix: KeysAndValues | None,
    rows: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    wanted: Tensor,
) -> Tensor:
    """Runs one layer for single rows: keys and values of all rows, everything else of the wanted.

    Args:
        block: A decoder layer that takes prefixes.
        prefix: P keys and values in front of all rows, or None.
        rows: (B, S, D), the layer's input.
        position_embeddings: Rotary cosine and sine (1, S, D_head) of the rows.
        wanted: (B, S) bool.

    Returns:
        (N, D), sample by sample.
    """
    everything = concatenated(prefix, keys_and_values(block, rows, position_embeddings))
    counts = wanted.sum(dim=1)
    # Wanted rows first and in order; samples with fewer are filled up with others, which are dropped again.
    places = wanted.long().sort(dim=1, descending=True, stable=True).indices[:, : int(counts.max())]
    cosine, sine = (table[0][places] for table in position_embeddings)
    queries = rows.gather(1, places[..., None].expand(-1, -1, rows.shape[-1]))
    in_front = everything[0].shape[2] - rows.shape[1]
    columns = torch.arange(everything[0].shape[2], device=rows.device)
    visible = (columns <= places[..., None] + in_front)[:, None]
    output = block(queries, attention_mask=visible, position_embeddings=(cosine, sine), prefix=everything)
    is_wanted = torch.arange(places.shape[1], device=rows.device) < counts[:, None]
    return output[is_wanted]  # type: ignore[no-any-return]


def shared_rows(input_ids: Tensor, image_token_id: int, rows_behind: int) -> int:
    """Counts the rows at the front of every sample that do not differ between samples.

    Args:
        input_ids: (B, T).
        image_token_id: Stands where the image's rows go.
        rows_behind: Rows that every image begins with, whatever the picture.

    Returns:
        The number of equal tokens before the first image, and ``rows_behind`` more if the image follows them.
    """
    is_image = input_ids == image_token_id
    equal_text = ((input_ids == input_ids[:1]) & ~is_image).all(dim=0)
    text = equal_text.long().cumprod(dim=0).sum()
    image_everywhere = nn.functional.pad(is_image.all(dim=0), (0, 1))
    return int(text + rows_behind * image_everywhere.gather(0, text[None])[0])  # a GPU is waited for once
