"""Losses of many prompts behind rows that they share: a picture and its question run once for all of them.

All prompts, each with what stands behind it up to the last supervised token, are put behind the shared rows side by
side: each row sees the shared ones and its own prompt's earlier rows, at the position it would have alone.
"""

from collections.abc import Sequence

import numpy
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_m2pt.answering.decoding_steps import branch
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.model_output import DecodingState
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.prompt_search.prompt_texts import Prompt, supervised
from lightning_m2pt.prompt_search.scored_samples import ScoredSample, batch_of

ROWS_SIDE_BY_SIDE = 128
"""Rows of one sample that run side by side: each is compared with all others of them, seen or not."""
LOGITS_AT_ONCE = 2**24
"""Numbers of logits that are held at once."""


def shared_losses(
    backbone: Backbone, processor: Processor, samples: Sequence[ScoredSample], prompts: Sequence[Prompt]
) -> Tensor:
    """Returns what prompts lose on samples whose pictures all stand in front of the prompt.

    Args:
        backbone: A loaded backbone, with or without an attached method.
        processor: Of the backbone.
        samples: Q conversations.
        prompts: C prompts; those of one length run side by side.

    Returns:
        (C, Q) float64 on the CPU: cross-entropy summed over each conversation's supervised tokens.
    """
    losses = torch.zeros(len(prompts), len(samples), dtype=torch.float64)
    with torch.inference_mode():
        state = backbone.prefill(batch_of([sample.front() for sample in samples], processor, backbone))
        for length in sorted({len(prompt) for prompt in prompts}):
            places = [place for place, prompt in enumerate(prompts) if len(prompt) == length]
            of_length = [prompts[place] for place in places]
            losses[places] = losses_of_one_length(backbone, state, samples, of_length)
    return losses


def losses_of_one_length(
    backbone: Backbone, state: DecodingState, samples: Sequence[ScoredSample], prompts: Sequence[Prompt]
) -> Tensor:
    """Returns (C, Q): what prompts of one length lose behind rows that have run."""
    width = max(sample.rows_behind(len(prompts[0])) for sample in samples)
    at_once = max(1, ROWS_SIDE_BY_SIDE // width)
    device, losses = state.logits.device, []
    for begin in range(0, len(prompts), at_once):
        some = prompts[begin : begin + at_once]
        tokens, targets, wanted = (each.to(device) for each in rows_behind(samples, some, width))
        depths = torch.arange(width, device=device).repeat(len(some))
        owners = torch.arange(len(some), device=device).repeat_interleave(width)
        sees = (owners[:, None] == owners) & (depths[:, None] >= depths)
        states = branch(backbone, state, tokens.flatten(1), depths, sees)
        losses.append(summed(backbone, states.unflatten(1, (len(some), width)), targets, wanted))
    return torch.cat(losses)


def rows_behind(
    samples: Sequence[ScoredSample], prompts: Sequence[Prompt], width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what stands behind the shared rows.

    Returns:
        Tokens (Q, C, W), the token that follows each (Q, C, W), and whether that one is supervised, (Q, W) bool: the
        same for all prompts, which are of one length. Padding stands behind everything, so that nothing sees it.
    """
    tokens, targets = (numpy.zeros((len(samples), len(prompts), width), numpy.int64) for _ in range(2))
    wanted = numpy.zeros((len(samples), width), bool)
    length = len(prompts[0])
    filling = numpy.array(prompts)
    for row, sample in enumerate(samples):
        filled, number = sample.opened.filled(prompts[0]), sample.rows_behind(length)
        ids = numpy.repeat(filled.input_ids[None, sample.head : sample.head + number + 1], len(prompts), axis=0)
        for start in sample.opened.starts(length):
            ids[:, start - sample.head : start - sample.head + length] = filling
        tokens[row, :, :number], targets[row, :, :number] = ids[:, :-1], ids[:, 1:]
        wanted[row, :number] = supervised(filled)[sample.head + 1 : sample.head + number + 1]
    return torch.from_numpy(tokens), torch.from_numpy(targets), torch.from_numpy(wanted)


def summed(backbone: Backbone, states: Tensor, targets: Tensor, wanted: Tensor) -> Tensor:
    """Returns (C, Q) float64 on the CPU: the cross-entropy of wanted rows, summed.

    Args:
        backbone: The backbone, for its head.
        states: (Q, C, W, D).
        targets: (Q, C, W).
        wanted: (Q, W) bool.
    """
    rows = states.transpose(1, 2)[wanted]  # (M, C, D)
    following = targets.transpose(1, 2)[wanted]
    samples = wanted.nonzero()[:, 0].cpu()
    at_once = max(1, LOGITS_AT_ONCE // (rows.shape[1] * backbone.token_embedding().num_embeddings))
    sums = torch.zeros(len(states), rows.shape[1], dtype=torch.float64)
    for begin in range(0, len(rows), at_once):
        some = slice(begin, begin + at_once)
        logits = backbone.logits(rows[some]).flatten(0, 1)
        wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        losses = cross_entropy(wide, following[some].flatten(), reduction="none").view(-1, rows.shape[1])
        sums.index_add_(0, samples[some], losses.double().cpu())
    return sums.T
