"""Greedy decoding over a backbone's prefill and advance steps."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.inputs.batch import Batch


@dataclass(frozen=True)
class GreedyAnswer:
    """One decoded answer.

    Attributes:
        token_ids: Without the end token.
        margin: The smallest difference between the two highest logits over its steps: how much rounding it stands.
    """

    token_ids: list[int]
    margin: float


@torch.inference_mode()
def greedy_answers(backbone: Backbone, batch: Batch, max_new_tokens: int, end_token_id: int) -> list[GreedyAnswer]:
    """Answers every question of a batch with the most likely token at each step.

    Args:
        backbone: A loaded backbone, with or without an attached method.
        batch: Questions without answers, padded on the right.
        max_new_tokens: Longest answer, the end token included.
        end_token_id: Token that ends an answer.

    Returns:
        B answers.
    """
    state = backbone.prefill(batch)
    chosen: list[Tensor] = []
    finished = torch.zeros(len(batch), dtype=torch.bool, device=state.logits.device)
    margins = torch.full((len(batch),), float("inf"), device=state.logits.device)
    for step in range(max_new_tokens):
        highest, candidates = state.logits.float().topk(2, dim=-1)
        tokens = torch.where(finished, torch.full_like(candidates[:, 0], end_token_id), candidates[:, 0])
        margins = torch.where(finished, margins, margins.minimum(highest[:, 0] - highest[:, 1]))
        chosen.append(tokens)
        finished |= tokens == end_token_id
        if bool(finished.all()) or step == max_new_tokens - 1:
            break
        state = backbone.advance(state, tokens)
    answers = torch.stack(chosen, dim=1).tolist()
    return [
        GreedyAnswer(answer[: answer.index(end_token_id)] if end_token_id in answer else answer, margin)
        for answer, margin in zip(answers, margins.tolist(), strict=True)
    ]
