"""The shared-prefix engine: everything that does not depend on a question is computed once for all questions.

Rows of a question's sequence, in order: learned keys and values, text before the picture, raw visual prompt rows, the
picture, the question. The first three are run once for the batch at batch size 1. Every picture is one row, run once:
behind it stand all its questions side by side, the words they all begin with once, under a mask that hides them from
each other, each at the positions it would have alone. A causal decoder gives the same numbers as for every question by
itself; ``Backbone.prefill`` is that reference.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.inputs.picture_batch import PADDING_SEGMENT, SHARED_SEGMENT, PictureBatch
from lightning_m2pt.prompts.decoder_stages import append_rows
from lightning_m2pt.prompts.shared_prefix import cache_with_prefix


@dataclass
class PictureRows:
    """What the decoder has seen of I pictures and their questions.

    Attributes:
        cache: Its keys and values, one sample a picture. Every feeding writes into it.
        segment_ids: (I, K) int64, which of its picture's questions each cached row belongs to; ``SHARED_SEGMENT`` or
            ``PADDING_SEGMENT``.
    """

    cache: Any
    segment_ids: Tensor


@dataclass
class PictureState:
    """Where the answers to Q questions about I pictures stand.

    Attributes:
        rows: What their next tokens can see.
        pictures: (Q,) int64 the cache's sample of each question.
        slots: (Q,) int64 the number of each question within its picture.
        next_position: (Q,) int64 rotary position of each question's next token.
        logits: (Q, V) for each question's next token.
    """

    rows: PictureRows
    pictures: Tensor
    slots: Tensor
    next_position: Tensor
    logits: Tensor


def prefill_pictures(backbone: Backbone, batch: PictureBatch) -> PictureState:
    """Runs questions without answers, every shared row once.

    Args:
        backbone: A loaded backbone that can share prefixes as it is (``Backbone.shares_prefix``).
        batch: I pictures and their Q distinct questions.
    """
    visual = backbone.visual_rows(batch.pixel_values)
    connected, embed = backbone.connect(visual.rows), backbone.token_embedding()
    raw = backbone.attachment.raw_prompt_rows()
    before = torch.cat([embed(batch.before)[None], connected[:1, :raw]], dim=1)
    rows = rows_before_pictures(backbone, before, len(connected))
    begin = rows.segment_ids.shape[1]
    picture = connected[:, raw:]
    behind = picture.shape[1]
    segment_ids = torch.nn.functional.pad(batch.segment_ids, (behind, 0), value=SHARED_SEGMENT)
    inside = torch.arange(behind, device=segment_ids.device).expand(len(segment_ids), -1)
    places = torch.cat([inside, batch.places + behind], dim=1)
    tree_mask = seen_by(segment_ids, segment_ids) & (places[:, :, None] >= places[:, None])
    lasts = table_by_picture(batch.pictures, batch.slots, batch.lasts + behind)
    embeddings = torch.cat([picture, embed(batch.tokens)], dim=1)
    states = append_to_pictures(backbone, rows, embeddings, segment_ids, places + begin, tree_mask, lasts)
    logits = backbone.logits(states[batch.pictures, batch.slots])
    next_position = places[batch.pictures, batch.lasts + behind] + begin + 1
    return PictureState(rows, batch.pictures, batch.slots, next_position, logits)


def rows_before_pictures(backbone: Backbone, before: Tensor, pictures: int) -> PictureRows:
    """Runs rows (1, N, D) that are the same for all pictures behind the learned keys and values, once."""
    decoder, learned, number = backbone.decoder(), backbone.attachment.rows_before_text(), before.shape[1]
    shared = backbone.learned_keys_and_values()
    if number:
        cache = cache_with_prefix(decoder, shared, 1)
        positions = torch.arange(learned, learned + number, device=before.device)[None]
        visible = torch.ones(1, number, learned + number, dtype=torch.bool, device=before.device).tril(learned)
        append_rows(decoder, cache, before, positions, visible, wanted=positions[:, :0])
        shared = [(layer.keys, layer.values) for layer in cache.layers]
    segment_ids = torch.full((pictures, learned + number), SHARED_SEGMENT, device=before.device)
    return PictureRows(cache_with_prefix(decoder, shared, pictures), segment_ids)


def append_to_pictures(
    backbone: Backbone,
    rows: PictureRows,
    embeddings: Tensor,
    segment_ids: Tensor,
    positions: Tensor,
    tree_mask: Tensor,
    wanted: Tensor | None = None,
) -> Tensor:
    """Appends N rows to every picture's; each sees what everyone sees and what its question has in the cache.

    Args:
        backbone: The backbone.
        rows: They grow by the new ones.
        embeddings: (I, N, D).
        segment_ids: (I, N) the question of each, or ``PADDING_SEGMENT``.
        positions: (I, N) rotary positions.
        tree_mask: (I or 1, N, N) bool, which of the N rows each of them sees.
        wanted: (I, W) the rows whose output is needed; None: all.

    Returns:
        (I, W or N, D) after the final norm.

    Raises:
        BadInputError: If a row stands behind the language model's last position.
    """
    if (
        rows.segment_ids.shape[1] + segment_ids.shape[1] > backbone.shape.maximum_positions
    ):  # all questions': no row stands later
        backbone.refuse_beyond_positions(int(positions.max()) + 1)
    visible = torch.cat([seen_by(segment_ids, rows.segment_ids), tree_mask.expand(len(segment_ids), -1, -1)], dim=2)
    rows.segment_ids = torch.cat([rows.segment_ids, segment_ids], dim=1)
    return append_rows(backbone.decoder(), rows.cache, embeddings, positions, visible, wanted)


def advance_pictures(backbone: Backbone, state: PictureState, going_on: Tensor, tokens: Tensor) -> PictureState:
    """Feeds one token to each question that goes on; finished questions, and pictures without others, are left out.

    Args:
        backbone: The backbone.
        state: It is used up.
        going_on: (G,) int64 numbers of the questions that go on, ascending.
        tokens: (G,) their tokens.

    Returns:
        The state of these G questions.
    """
    kept, pictures = state.pictures[going_on].unique_consecutive(return_inverse=True)
    rows = state.rows
    if len(kept) < len(rows.segment_ids):
        rows.cache.batch_select_indices(kept)
        rows.segment_ids = rows.segment_ids[kept]
    # A question's column among those that go on with its picture.
    first = torch.searchsorted(pictures, pictures)
    columns = torch.arange(len(pictures), device=pictures.device) - first
    slots, next_position = state.slots[going_on], state.next_position[going_on]
    segment_ids = table_by_picture(pictures, columns, slots, fill=PADDING_SEGMENT)
    tree_mask = torch.eye(segment_ids.shape[1], dtype=torch.bool, device=segment_ids.device)[None]
    positions = table_by_picture(pictures, columns, next_position)
    embeddings = backbone.token_embedding()(table_by_picture(pictures, columns, tokens))
    states = append_to_pictures(backbone, rows, embeddings, segment_ids, positions, tree_mask)
    logits = backbone.logits(states[pictures, columns])
    return PictureState(rows, pictures, slots, next_position + 1, logits)


def branch_pictures(
    backbone: Backbone, state: PictureState, tokens: Tensor, depths: Tensor, tree_mask: Tensor
) -> Tensor:
    """Feeds the tokens of several continuations behind every question at once; afterwards the state is used up.

    Args:
        backbone: The backbone.
        state: What ``prefill_pictures`` returned for Q questions.
        tokens: (N,) the continuations' tokens, the same for every question, or (Q, N), each question's own.
        depths: (N,) or (Q, N) place of each within its continuation, from 0.
        tree_mask: (N, N) or (Q, N, N) bool, which of the N tokens each token sees; all of them see the question.

    Returns:
        (Q, N, D) after the final norm.
    """
    first = table_by_picture(state.pictures, state.slots, state.next_position)
    slots = table_by_picture(state.pictures, state.slots, state.slots, fill=PADDING_SEGMENT)
    (pictures, width), number = slots.shape, tokens.shape[-1]
    alone = torch.eye(width, dtype=torch.bool, device=tokens.device)

    def of_each(values: Tensor, own: bool) -> Tensor:
        """Returns (I, W, ...), or (1, 1, ...) of what is the same for all questions."""
        if not own:
            return values[None, None]
        laid = values.new_zeros(pictures, width, *values.shape[1:])
        return laid.index_put_((state.pictures, state.slots), values)

    tokens, depths, tree_mask = (
        of_each(values, values.dim() > shared) for values, shared in ((tokens, 1), (depths, 1), (tree_mask, 2))
    )
    seen = alone[None, :, None, :, None] & tree_mask[:, :, :, None]
    states = append_to_pictures(
        backbone,
        state.rows,
        backbone.token_embedding()(tokens.expand(pictures, width, -1)).flatten(1, 2),
        slots.repeat_interleave(number, dim=1),
        (first[..., None] + depths).flatten(1),
        seen.reshape(len(seen), width * number, -1),
    )
    return states.view(pictures, width, number, -1)[state.pictures, state.slots]


def seen_by(segment_ids: Tensor, keys: Tensor) -> Tensor:
    """Returns (I, N, K) bool: whether rows of segments (I, N) may see rows of the segments ``keys`` (I, K)."""
    return (keys[:, None] == SHARED_SEGMENT) | (keys[:, None] == segment_ids[..., None])


def table_by_picture(pictures: Tensor, columns: Tensor, values: Tensor, fill: int = 0) -> Tensor:
    """Returns (I, W): every question's value (Q,) in its picture's row and in its column; ``fill`` elsewhere."""
    shape = (int(pictures[-1]) + 1, int(columns.max()) + 1)
    return values.new_full(shape, fill).index_put_((pictures, columns), values)
