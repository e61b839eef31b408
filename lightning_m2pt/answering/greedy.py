"""Greedy decoding: the most likely token at each step, from questions read one by one or by picture."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_m2pt.answering.decoding_steps import advance
from lightning_m2pt.answering.shared_prefill import prefill_pictures
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.model_output import DecodingState
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.picture_batch import PictureBatch


@dataclass(frozen=True)
class GreedyAnswer:
    """One decoded answer.

    Attributes:
        token_ids: Without the end token.
        margin: The smallest difference between the two highest logits over its steps: how much rounding it stands.
    """

    token_ids: list[int]
    margin: float


def read_questions(backbone: Backbone, batch: Batch | PictureBatch) -> DecodingState:
    """Runs questions without answers: by picture, for a backbone that shares prefixes, or each by itself."""
    if isinstance(batch, PictureBatch):
        return prefill_pictures(backbone, batch)
    return backbone.prefill(batch)


@torch.inference_mode()
def greedy_answers(
    backbone: Backbone,
    batch: Batch | PictureBatch,
    max_new_tokens: int,
    end_token_id: int,
    *other_end_token_ids: int,
) -> list[GreedyAnswer]:
    """Answers with the most likely token at each step; a question leaves the batch at an end token.

    Args:
        backbone: A loaded backbone, with or without an attached method; for a picture batch one that shares prefixes.
        batch: Questions without answers, padded on the right, or I pictures and their distinct questions.
        max_new_tokens: Longest answer, the end token included.
        end_token_id: Token that ends an answer.
        other_end_token_ids: Further tokens that end one.

    Returns:
        One answer for each question of the batch, for each distinct one of a picture batch.
    """
    ends = {end_token_id, *other_end_token_ids}
    state = read_questions(backbone, batch)
    questions = list(range(len(state.logits)))
    answers: list[list[int]] = [[] for _ in questions]
    margins = [float("inf")] * len(questions)
    for step in range(max_new_tokens):
        tokens, differences = likeliest_tokens(backbone, state.logits)
        going_on: list[int] = []
        choices = zip(questions, tokens.tolist(), differences.tolist(), strict=True)
        for place, (question, token, margin) in enumerate(choices):
            # A margin that is no number stays: min() would drop it.
            margins[question] = margin if math.isnan(margin) else min(margins[question], margin)
            if token not in ends:
                answers[question].append(token)
                going_on.append(place)
        if not going_on or step == max_new_tokens - 1:
            break
        questions = [questions[place] for place in going_on]
        kept = torch.tensor(going_on, device=tokens.device)
        state = advance(backbone, state, tokens[kept], kept)
    return [GreedyAnswer(answer, margin) for answer, margin in zip(answers, margins, strict=True)]


def likeliest_tokens(backbone: Backbone, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the most likely next token of every question (Q,), and how far the second's logit is behind (Q,).

    Args:
        backbone: Its tokens that stand for pictures are never chosen.
        logits: (Q, V).
    """
    logits = logits.float()
    if backbone.never_answered:
        logits = logits.index_fill(1, torch.tensor(backbone.never_answered, device=logits.device), -math.inf)
    highest, candidates = logits.topk(2, dim=-1)
    return candidates[:, 0], highest[:, 0] - highest[:, 1]
