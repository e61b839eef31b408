"""Greedy decoding over a backbone's prefill and advance steps."""

import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.types import Batch


@torch.inference_mode()
def greedy_answers(backbone: Backbone, batch: Batch, max_new_tokens: int, end_token_id: int) -> list[list[int]]:
    """Answers every question of a batch with the most likely token at each step.

    Args:
        backbone: A loaded backbone, with or without an attached method.
        batch: Questions without answers, padded on the right.
        max_new_tokens: Longest answer, the end token included.
        end_token_id: Token that ends an answer.

    Returns:
        B lists of token ids without the end token.
    """
    state = backbone.prefill(batch)
    chosen: list[Tensor] = []
    finished = torch.zeros(len(batch), dtype=torch.bool, device=state.logits.device)
    for step in range(max_new_tokens):
        tokens = state.logits.argmax(dim=-1)
        tokens = torch.where(finished, torch.full_like(tokens, end_token_id), tokens)
        chosen.append(tokens)
        finished |= tokens == end_token_id
        if bool(finished.all()) or step == max_new_tokens - 1:
            break
        state = backbone.advance(state, tokens)
    answers = torch.stack(chosen, dim=1).tolist()
    return [answer[: answer.index(end_token_id)] if end_token_id in answer else answer for answer in answers]
