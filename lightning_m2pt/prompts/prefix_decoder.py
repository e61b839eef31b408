"""Behind shared keys and values: the prefix path of training.

Rows that all samples of a batch have alike can run once for all of them, and the last layer can be asked for single
rows only. Exact: a causal row depends on no row behind it, and what the last layer would make of other rows reaches no
loss.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_m2pt.prompts.decoder_pass import append_rows
from lightning_m2pt.prompts.past_rows import PastRows


def run_behind_prefix(
    decoder: Any,  # noqa: ANN401
    prefix: PastRows,
    rows: Tensor,
    positions: Tensor | None = None,
    front: Tensor | None = None,
    wanted: Tensor | None = None,
) -> Tensor:
    """Runs all layers and the final norm.

    Args:
        decoder: A decoder that takes past rows.
        prefix: P keys and values in front of all rows; their positions are 0 to P - 1.
        rows: (B, S, D).
        positions: (B, S) of the rows without the prefix; None: their numbers.
        front: (1, F, D) the first F of the rows, which are alike in all samples and shall run once, with the gradient
            that they have there.
        wanted: (B, S) bool, at least one and none of them among the shared: the rows whose outputs are needed.

    Returns:
        (N, D) after the final norm, sample by sample: the N wanted rows. Without ``wanted`` (B, S - F, D), all
        that are not shared.
    """
    places = torch.arange(rows.shape[1], device=rows.device)
    if wanted is not None:
        places = places[: 1 + int((wanted.any(dim=0) * places).max())]
    positions = prefix.length + (places[None] if positions is None else positions[:, : len(places)])
    shared = 0 if front is None else front.shape[1]
    if front is not None and shared:
        first = positions[:1]
        _, prefix = append_rows(decoder, prefix, front, first[:, :shared], wanted=first[:, :0])
    own, positions = rows[:, shared : len(places)], positions[:, shared:]
    if wanted is None:
        return append_rows(decoder, prefix, own, positions, keeps=False)[0]
    wanted = wanted[:, shared : len(places)]
    counts = wanted.sum(dim=1)
    # Wanted rows first and in order; samples with fewer are filled up with others, which are dropped again.
    chosen = wanted.long().sort(dim=1, descending=True, stable=True).indices[:, : int(counts.max())]
    output, _ = append_rows(decoder, prefix, own, positions, wanted=chosen, keeps=False)
    return output[torch.arange(chosen.shape[1], device=rows.device) < counts[:, None]]


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
