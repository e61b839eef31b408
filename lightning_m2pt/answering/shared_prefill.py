"""The shared-prefix engine: everything that does not depend on a question is computed once for all questions.

Rows of a question's sequence, in order: learned keys and values, text before the picture, raw visual prompt rows, the
picture, the question. The first three are run once for the batch at batch size 1. Every picture is one row, run once,
with the tokens that may stand between its parts: behind it stand all its questions side by side, the words they all
begin with once, under a mask that hides them from each other, each at the positions it would have alone. A causal
decoder gives the same numbers as for every question by itself; ``Backbone.prefill`` is that reference.
"""

import torch
from torch import Tensor, nn

from lightning_m2pt.answering.decoding_steps import append_to_pictures, seen_by, table_by_picture
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.connected_rows import ConnectedRows, positions_in_order
from lightning_m2pt.backbones.model_output import DecodingState
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID
from lightning_m2pt.inputs.picture_batch import PADDING_SEGMENT, SHARED_SEGMENT, PictureBatch
from lightning_m2pt.inputs.splice import Splice, splice
from lightning_m2pt.prompts.past_rows import PastRows
from lightning_m2pt.prompts.rotary_axes import behind


def prefill_pictures(backbone: Backbone, batch: PictureBatch) -> DecodingState:
    """Runs questions without answers, every shared row once.

    Args:
        backbone: A loaded backbone that can share prefixes as it is (``Backbone.shares_prefix``).
        batch: I pictures and their Q distinct questions.
    """
    pictures, embed = backbone.connected_rows(batch.pixel_values, batch.picture_sizes), backbone.token_embedding()
    raw = backbone.attachment.raw_prompt_rows()
    if raw and not bool((batch.tokens[:, 0] == IMAGE_TOKEN_ID).all()):
        raw = 0  # they stand behind tokens that are not the same for all pictures
    past = rows_before_pictures(backbone, torch.cat([embed(batch.before), pictures.rows[:raw]])[None])
    begin = past.length
    if raw:
        pictures = without_first_rows(pictures, (batch.tokens == IMAGE_TOKEN_ID).sum(dim=1).tolist(), raw)
    laid = splice(batch.tokens, batch.segment_ids != PADDING_SEGMENT, pictures.counts)
    embeddings, segment_ids, places = packed_rows(batch, embed, pictures, laid)
    positions = packed_positions(pictures, laid, batch.tokens.numel(), segment_ids, places)
    tree_mask = seen_by(segment_ids, segment_ids) & (places[:, :, None] >= places[:, None])
    last_columns = laid.begins[batch.pictures, batch.lasts]
    lasts = table_by_picture(batch.pictures, batch.slots, last_columns)
    shared = segment_ids.new_full((len(segment_ids), begin), SHARED_SEGMENT)
    states, past, segments = append_to_pictures(
        backbone,
        past,
        shared,
        embeddings,
        segment_ids,
        positions + begin,
        tree_mask,
        lasts,
    )
    logits = backbone.logits(states[batch.pictures, batch.slots])
    next_position = behind(positions[batch.pictures, last_columns] + begin)
    return DecodingState(past, segments, batch.pictures, batch.slots, next_position, logits)


def packed_rows(
    batch: PictureBatch, embed: nn.Embedding, pictures: ConnectedRows, laid: Splice
) -> tuple[Tensor, Tensor, Tensor]:
    """Puts pictures' rows between the tokens of a packed batch.

    Returns:
        Embeddings (I, S, D), segments (I, S) and the places (I, S) of rows within their question's sequence.
    """
    number = len(pictures.rows)

    def of_rows(of_tokens: Tensor, padding: int, of_picture: int) -> Tensor:
        others = of_tokens.new_full((1 + number,), of_picture)
        others[0] = padding
        return torch.cat([of_tokens.flatten(), others])[laid.order]

    ids = nn.functional.pad(batch.tokens.clamp(min=0).flatten(), (0, 1))
    embeddings = torch.cat([embed(ids), pictures.rows])[laid.order]
    segment_ids = of_rows(batch.segment_ids, PADDING_SEGMENT, SHARED_SEGMENT)
    columns = torch.arange(laid.order.shape[1], device=segment_ids.device).expand_as(segment_ids)
    # What all questions of a picture see stands first and in order; every placeholder is among it, so that a
    # question's own tokens all move by as many rows as the picture has more than placeholders.
    moved = (laid.begins - torch.arange(laid.begins.shape[1], device=columns.device)).expand_as(batch.places)
    own = of_rows(batch.places + moved, 0, 0)
    return embeddings, segment_ids, torch.where(segment_ids == SHARED_SEGMENT, columns, own)


def packed_positions(pictures: ConnectedRows, laid: Splice, tokens: int, segment_ids: Tensor, places: Tensor) -> Tensor:
    """Returns the positions (I, S) of a packed batch's rows.

    Args:
        pictures: The runs of all pictures.
        laid: How they lie between the tokens.
        tokens: How many tokens there are.
        segment_ids: (I, S).
        places: (I, S) the places of rows within their question's sequence.
    """
    in_order = positions_in_order(pictures, laid.order, tokens)
    if in_order is None or pictures.advances is None:
        return places
    # Rows behind a picture stand nearer than by its number of rows.
    is_picture = laid.order > tokens
    advances = torch.cat([places.new_zeros(tokens + 1), pictures.advances])[laid.order]
    nearer = is_picture.sum(dim=1) - advances.sum(dim=1)
    return torch.where(segment_ids == SHARED_SEGMENT, in_order, places - nearer[:, None])


def without_first_rows(pictures: ConnectedRows, runs: list[int], number: int) -> ConnectedRows:
    """Returns what is left when the first run of every sample begins so many rows later.

    Args:
        pictures: The runs of all samples.
        runs: How many of them each sample has.
        number: Rows to leave out.
    """
    firsts = [sum(runs[:sample]) for sample in range(len(runs))]
    counts, kept = list(pictures.counts), torch.ones(len(pictures.rows), dtype=torch.bool, device=pictures.rows.device)
    for first in firsts:
        begin = sum(pictures.counts[:first])
        kept[begin : begin + number] = False
        counts[first] -= number
    return ConnectedRows(pictures.rows[kept], pictures.spans[kept], counts)


def rows_before_pictures(backbone: Backbone, before: Tensor) -> PastRows:
    """Runs rows (1, N, D) that are the same for all pictures behind the learned keys and values, once."""
    learned, number = backbone.learned_keys_and_values(), before.shape[1]
    if not number:
        return learned
    positions = torch.arange(learned.length, learned.length + number, device=before.device)[None]
    visible = torch.ones(1, number, learned.length + number, dtype=torch.bool, device=before.device).tril(
        learned.length
    )
    return backbone.append_rows(learned, before, positions, visible, wanted=positions[:, :0])[1]
