"""Log-probabilities of whole candidate answers, the question and its image computed once for all of them.

All candidates are put behind the question side by side in one forward pass: each of their tokens sees the question and
its own candidate's earlier tokens, and stands at the position it would have alone. So the cached keys and values of
the question are neither copied nor computed again per candidate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from lightning_m2pt.answering.decoding_steps import branch
from lightning_m2pt.answering.greedy import read_questions
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IGNORED_LABEL, Batch
from lightning_m2pt.inputs.named_templates import Template
from lightning_m2pt.inputs.picture_batch import PictureBatch
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import Sample, Turn

ROWS_PER_LOGITS = 64
"""Rows of every question whose logits over the vocabulary are held at once."""


@dataclass(frozen=True)
class Candidates:
    """Candidate answers as tokens.

    Attributes:
        texts: C answers.
        token_ids: The tokens of each behind the question, its end token included: what training supervises.
    """

    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each, the end token included."""
        return [len(ids) for ids in self.token_ids]


def tokenised_candidates(processor: Processor, template: Template, texts: Sequence[str]) -> Candidates:
    """Returns candidate answers as the tokens they are within a conversation.

    Raises:
        BadInputError: If there are fewer than two different ones, or the tokenizer reads two alike or joins one with
            the text before it, so that the question has no tokens of its own.
    """
    if len(set(texts)) < 2 or len(set(texts)) != len(texts) or not all(texts):
        raise BadInputError(
            f"the candidate answers are {list(texts)!r:.80}", where="candidates", expected="two different texts or more"
        )
    image = numpy.zeros((1, 1, 3), numpy.uint8)
    samples = [Sample(text, image, "", (Turn("What?", text),), ("",), "candidates") for text in texts]
    question = processor.encode(samples[0], template, with_answers=False).input_ids.tolist()
    token_ids = []
    for text, encoded in zip(texts, processor.encode_all(samples, template), strict=True):
        ids = encoded.input_ids.tolist()
        if ids[: len(question)] != question:
            raise BadInputError(
                f"the tokenizer joins {text!r:.40} with the text before it",
                where=f"template {template.name}",
                expected="an answer whose tokens begin behind the question's",
                hint="answer greedily",
            )
        last = int(numpy.flatnonzero(encoded.labels != IGNORED_LABEL)[-1])  # templates may write more behind the end
        token_ids.append(tuple(ids[len(question) : last + 1]))
    if len(set(token_ids)) != len(token_ids):
        raise BadInputError(
            f"the tokenizer reads two of {list(texts)!r:.80} alike", where="candidates", expected="different tokens"
        )
    return Candidates(tuple(texts), tuple(token_ids))


@torch.inference_mode()
def candidate_log_probabilities(backbone: Backbone, batch: Batch | PictureBatch, candidates: Candidates) -> Tensor:
    """Returns the log-probability of every candidate, end token included, for every question of a batch.

    Args:
        backbone: A loaded backbone, with or without an attached method; for a picture batch one that shares prefixes.
        batch: Q questions without answers, padded on the right, or pictures and their Q distinct questions.
        candidates: C candidate answers.

    Returns:
        (Q, C) float32: natural logarithms, summed over each candidate's tokens.
    """
    state = read_questions(backbone, batch)
    device = state.logits.device
    fed, depths, tree_mask, targets, candidate_of_token = side_by_side(candidates, device)
    first = torch.tensor([ids[0] for ids in candidates.token_ids], device=device)
    log_probabilities = state.logits.float().log_softmax(dim=-1)[:, first]
    if len(fed):
        states = branch(backbone, state, fed, depths, tree_mask)
        log_probabilities = add_later_tokens(backbone, log_probabilities, states, targets, candidate_of_token)
    return log_probabilities


def add_later_tokens(
    backbone: Backbone, log_probabilities: Tensor, states: Tensor, targets: Tensor, candidate_of_token: Tensor
) -> Tensor:
    """Returns (B, C): the log-probabilities of the first tokens with those of all later ones added.

    Args:
        backbone: The backbone, for its head.
        log_probabilities: (B, C) of every candidate's first token.
        states: (B, N, D) of the candidates' tokens, side by side.
        targets: (N,) the token that follows each.
        candidate_of_token: (N,) the candidate of each.
    """
    for start in range(0, len(targets), ROWS_PER_LOGITS):
        rows = slice(start, start + ROWS_PER_LOGITS)
        logits = backbone.logits(states[:, rows]).float()
        at_target = logits.gather(2, targets[rows].expand(len(states), -1)[..., None])[..., 0]
        log_probabilities = log_probabilities.index_add(
            1, candidate_of_token[rows], at_target - logits.logsumexp(dim=-1)
        )
    return log_probabilities


def side_by_side(candidates: Candidates, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Lays all candidates' tokens but their last ones in one row of N.

    Returns:
        Tokens (N,), their places within their candidates (N,), which of the N rows each row sees (N, N) bool, the
        token that follows each (N,), and the number of each one's candidate (N,).
    """
    fed: list[int] = []
    depths: list[int] = []
    targets: list[int] = []
    candidate_of_token: list[int] = []
    for number, ids in enumerate(candidates.token_ids):
        fed += ids[:-1]
        targets += ids[1:]
        depths += range(len(ids) - 1)
        candidate_of_token += [number] * (len(ids) - 1)
    tokens, places, following, candidate = (
        torch.tensor(values, dtype=torch.long, device=device) for values in (fed, depths, targets, candidate_of_token)
    )
    tree_mask = (candidate[:, None] == candidate[None]) & (places[:, None] >= places[None])
    return tokens, places, tree_mask, following, candidate
