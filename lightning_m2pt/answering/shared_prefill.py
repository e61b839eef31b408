"""The shared-prefix engine: everything that does not depend on a question is computed once for all questions.

Rows of a question's sequence, in order: learned keys and values, text before the picture, raw visual prompt rows, the
picture, the question. The first three are run once for the batch at batch size 1. Every picture is one row, run once:
behind it stand all its questions side by side, the words they all begin with once, under a mask that hides them from
each other, each at the positions it would have alone. A causal decoder gives the same numbers as for every question by
itself; ``Backbone.prefill`` is that reference.
"""

import torch
from torch import Tensor

from lightning_m2pt.answering.decoding_steps import append_to_pictures, seen_by, table_by_picture
from lightning_m2pt.backbones.base import Backbone, DecodingState
from lightning_m2pt.inputs.picture_batch import SHARED_SEGMENT, PictureBatch
from lightning_m2pt.prompts.past_rows import PastRows


def prefill_pictures(backbone: Backbone, batch: PictureBatch) -> DecodingState:
    """Runs questions without answers, every shared row once.

    Args:
        backbone: A loaded backbone that can share prefixes as it is (``Backbone.shares_prefix``).
        batch: I pictures and their Q distinct questions.
    """
    visual = backbone.visual_rows(batch.pixel_values)
    connected, embed = backbone.connect(visual.rows), backbone.token_embedding()
    raw = backbone.attachment.raw_prompt_rows()
    past = rows_before_pictures(backbone, torch.cat([embed(batch.before)[None], connected[:1, :raw]], dim=1))
    begin = past.length
    picture = connected[:, raw:]
    behind = picture.shape[1]
    segment_ids = torch.nn.functional.pad(batch.segment_ids, (behind, 0), value=SHARED_SEGMENT)
    inside = torch.arange(behind, device=segment_ids.device).expand(len(segment_ids), -1)
    places = torch.cat([inside, batch.places + behind], dim=1)
    tree_mask = seen_by(segment_ids, segment_ids) & (places[:, :, None] >= places[:, None])
    lasts = table_by_picture(batch.pictures, batch.slots, batch.lasts + behind)
    shared = segment_ids.new_full((len(segment_ids), begin), SHARED_SEGMENT)
    states, past, segments = append_to_pictures(
        backbone,
        past,
        shared,
        torch.cat([picture, embed(batch.tokens)], dim=1),
        segment_ids,
        places + begin,
        tree_mask,
        lasts,
    )
    logits = backbone.logits(states[batch.pictures, batch.slots])
    next_position = places[batch.pictures, batch.lasts + behind] + begin + 1
    return DecodingState(past, segments, batch.pictures, batch.slots, next_position, logits)


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
