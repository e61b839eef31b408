"""From a state of questions to the next: one token each, or several continuations of each at once.

A sample of the decoder is a picture with all its questions side by side; a question that was read by itself has a
picture to itself. Each question's rows see what all its picture's questions see, and their own.
"""

import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.model_output import DecodingState
from lightning_m2pt.inputs.picture_batch import PADDING_SEGMENT, SHARED_SEGMENT
from lightning_m2pt.prompts.past_rows import PastRows
from lightning_m2pt.prompts.rotary_axes import first_axis


def append_to_pictures(
    backbone: Backbone,
    past: PastRows,
    past_segments: Tensor,
    embeddings: Tensor,
    segment_ids: Tensor,
    positions: Tensor,
    tree_mask: Tensor,
    wanted: Tensor | None = None,
) -> tuple[Tensor, PastRows, Tensor]:
    """Appends N rows to every picture's; each sees what everyone sees and what its question has among the past rows.

    Args:
        backbone: The backbone.
        past: K past rows.
        past_segments: (I, K) the question of each, ``SHARED_SEGMENT`` or ``PADDING_SEGMENT``.
        embeddings: (I, N, D).
        segment_ids: (I, N) the question of each new row, or one of the two.
        positions: (I, N) rotary positions.
        tree_mask: (I or 1, N, N) bool, which of the N rows each of them sees.
        wanted: (I, W) the rows whose output is needed; None: all.

    Returns:
        (I, W or N, D) after the final norm, the past rows and their segments, each with the new ones behind it.

    Raises:
        BadInputError: If a row stands behind the language model's last position.
    """
    columns = past.length + segment_ids.shape[1]
    if columns > backbone.shape.maximum_positions:  # all questions' rows: only then is a GPU waited for
        backbone.refuse_beyond_positions(int(first_axis(positions).max()) + 1)
    visible = torch.cat([seen_by(segment_ids, past_segments), tree_mask.expand(len(segment_ids), -1, -1)], dim=2)
    states, past = backbone.append_rows(past, embeddings, positions, visible, wanted)
    return states, past, torch.cat([past_segments, segment_ids], dim=1)


def advance(backbone: Backbone, state: DecodingState, tokens: Tensor, going_on: Tensor | None = None) -> DecodingState:
    """Feeds one token to each question that goes on; finished questions, and pictures without others, are left out.

    Args:
        backbone: The backbone.
        state: It is used up.
        tokens: (G,) their tokens.
        going_on: (G,) int64 numbers of the questions that go on, ascending; None: all.

    Returns:
        The state of these G questions.
    """
    if going_on is None:
        going_on = torch.arange(len(state.pictures), device=tokens.device)
    kept, pictures = state.pictures[going_on].unique_consecutive(return_inverse=True)
    past, past_segments = state.past, state.segment_ids
    if len(kept) < len(past_segments):
        past, past_segments = past.of(kept), past_segments[kept]
    # A question's column among those that go on with its picture.
    columns = torch.arange(len(pictures), device=pictures.device) - torch.searchsorted(pictures, pictures)
    slots, next_position = state.slots[going_on], state.next_position[going_on]
    segment_ids = table_by_picture(pictures, columns, slots, fill=PADDING_SEGMENT)
    tree_mask = torch.eye(segment_ids.shape[1], dtype=torch.bool, device=segment_ids.device)[None]
    positions = table_by_picture(pictures, columns, next_position)
    embeddings = backbone.token_embedding()(table_by_picture(pictures, columns, tokens))
    states, past, past_segments = append_to_pictures(
        backbone, past, past_segments, embeddings, segment_ids, positions, tree_mask
    )
    logits = backbone.logits(states[pictures, columns])
    return DecodingState(past, past_segments, pictures, slots, next_position + 1, logits)


def branch(backbone: Backbone, state: DecodingState, tokens: Tensor, depths: Tensor, tree_mask: Tensor) -> Tensor:
    """Feeds the tokens of several continuations behind every question at once.

    Args:
        backbone: The backbone.
        state: The state of Q questions.
        tokens: (N,) the continuations' tokens, the same for every question, or (Q, N), each question's own.
        depths: (N,) or (Q, N) place of each within its continuation, from 0.
        tree_mask: (N, N) or (Q, N, N) bool, which of the N tokens each token sees; all of them see the question.

    Returns:
        (Q, N, D) after the final norm.
    """
    first = table_by_picture(state.pictures, state.slots, state.next_position)
    slots = table_by_picture(state.pictures, state.slots, state.slots, fill=PADDING_SEGMENT)
    (pictures, width), number = slots.shape, tokens.shape[-1]

    def of_each(values: Tensor, own: bool) -> Tensor:
        """Returns (I, W, ...), or (1, 1, ...) of what is the same for all questions."""
        if not own:
            return values[None, None]
        laid = values.new_zeros(pictures, width, *values.shape[1:])
        return laid.index_put_((state.pictures, state.slots), values)

    tokens, depths, tree_mask = (
        of_each(values, values.dim() > shared) for values, shared in ((tokens, 1), (depths, 1), (tree_mask, 2))
    )
    alone = torch.eye(width, dtype=torch.bool, device=tokens.device)
    seen = alone[None, :, None, :, None] & tree_mask[:, :, :, None]
    states, _, _ = append_to_pictures(
        backbone,
        state.past,
        state.segment_ids,
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
