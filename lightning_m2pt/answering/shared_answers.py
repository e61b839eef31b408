"""Greedy answers and log-probabilities from shared prefixes, for the distinct questions of a picture batch."""

import math

import torch
from torch import Tensor

from lightning_m2pt.answering.greedy import GreedyAnswer
from lightning_m2pt.answering.likelihood import Candidates, add_later_tokens, side_by_side
from lightning_m2pt.answering.shared_prefill import advance_pictures, branch_pictures, prefill_pictures
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.inputs.picture_batch import PictureBatch


@torch.inference_mode()
def greedy_answers_of_pictures(
    backbone: Backbone, batch: PictureBatch, max_new_tokens: int, end_token_id: int
) -> list[GreedyAnswer]:
    """Answers with the most likely token at each step; a question leaves the batch at its end token.

    Args:
        backbone: A loaded backbone that shares prefixes.
        batch: I pictures and their Q distinct questions.
        max_new_tokens: Longest answer, the end token included.
        end_token_id: Token that ends an answer.

    Returns:
        Q answers.
    """
    state = prefill_pictures(backbone, batch)
    questions = list(range(len(batch.pictures)))
    answers: list[list[int]] = [[] for _ in questions]
    margins = [float("inf")] * len(questions)
    for step in range(max_new_tokens):
        highest, candidates = state.logits.float().topk(2, dim=-1)
        going_on: list[int] = []
        choices = zip(questions, candidates[:, 0].tolist(), (highest[:, 0] - highest[:, 1]).tolist(), strict=True)
        for place, (question, token, margin) in enumerate(choices):
            # A margin that is no number stays: min() would drop it.
            margins[question] = margin if math.isnan(margin) else min(margins[question], margin)
            if token != end_token_id:
                answers[question].append(token)
                going_on.append(place)
        if not going_on or step == max_new_tokens - 1:
            break
        questions = [questions[place] for place in going_on]
        kept = torch.tensor(going_on, device=candidates.device)
        state = advance_pictures(backbone, state, kept, candidates[kept, 0])
    return [GreedyAnswer(answer, margin) for answer, margin in zip(answers, margins, strict=True)]


@torch.inference_mode()
def candidate_log_probabilities_of_pictures(backbone: Backbone, batch: PictureBatch, candidates: Candidates) -> Tensor:
    """Returns the log-probability of every candidate, end token included, for every distinct question.

    Args:
        backbone: A loaded backbone that shares prefixes.
        batch: I pictures and their Q distinct questions.
        candidates: C candidate answers.

    Returns:
        (Q, C) float32: natural logarithms, summed over each candidate's tokens.
    """
    state = prefill_pictures(backbone, batch)
    device = state.logits.device
    fed, depths, tree_mask, targets, candidate_of_token = side_by_side(candidates, device)
    first = torch.tensor([ids[0] for ids in candidates.token_ids], device=device)
    log_probabilities = state.logits.float().log_softmax(dim=-1)[:, first]
    if len(fed):
        states = branch_pictures(backbone, state, fed, depths, tree_mask)
        log_probabilities = add_later_tokens(backbone, log_probabilities, states, targets, candidate_of_token)
    return log_probabilities
