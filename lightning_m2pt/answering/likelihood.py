"""Log-probabilities of whole candidate answers, the question and its image computed once for all of them.

All candidates are put behind the question side by side in one forward pass: each of their tokens sees the question and
its own candidate's earlier tokens, and stands at the position it would have alone. So the cached keys and values of
the question are neither copied nor computed again per candidate. Questions may have candidates of their own.
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


@dataclass(frozen=True)
class SideBySide:
    """Candidates of questions in rows of N tokens, all but each one's last, padded behind the fewer.

    The first dimension, G, is Q, or 1 if all questions have the same. Padding sees padding alone, and counts for a
    candidate C that nobody has.

    Attributes:
        tokens: (G, N).
        depths: (G, N) the place of each within its candidate.
        tree_mask: (G, N, N) bool, which of the N rows each row sees.
        targets: (G, N) the token that follows each.
        owners: (G, N) the number of each one's candidate.
        first: (G, C) the first token of every candidate.
    """

    tokens: Tensor
    depths: Tensor
    tree_mask: Tensor
    targets: Tensor
    owners: Tensor
    first: Tensor


def side_by_side(candidates: Sequence[Candidates], device: torch.device) -> SideBySide:
    """Lays out the candidates of Q questions, or those of all questions if it is given one item."""
    questions, most = len(candidates), max(len(each.texts) for each in candidates)
    width = max(sum(len(ids) - 1 for ids in each.token_ids) for each in candidates)
    tokens, depths, targets = (torch.zeros(questions, width, dtype=torch.long) for _ in range(3))
    owners = torch.full((questions, width), most)
    first = torch.zeros(questions, most, dtype=torch.long)
    for row, each in enumerate(candidates):
        place = 0
        for number, ids in enumerate(each.token_ids):
            own = slice(place, place + len(ids) - 1)
            tokens[row, own], targets[row, own] = torch.tensor(ids[:-1]), torch.tensor(ids[1:])
            depths[row, own], owners[row, own], first[row, number] = torch.arange(len(ids) - 1), number, ids[0]
            place += len(ids) - 1
    tree_mask = (owners[:, :, None] == owners[:, None]) & (depths[:, :, None] >= depths[:, None])
    laid = (each.to(device) for each in (tokens, depths, tree_mask, targets, owners, first))
    return SideBySide(*laid)


@torch.inference_mode()
def candidate_log_probabilities(
    backbone: Backbone, batch: Batch | PictureBatch, candidates: Candidates | Sequence[Candidates]
) -> Tensor:
    """Returns the log-probability of every candidate, end token included, for every question of a batch.

    Args:
        backbone: A loaded backbone, with or without an attached method; for a picture batch one that shares prefixes.
        batch: Q questions without answers, padded on the right, or pictures and their Q distinct questions.
        candidates: C candidate answers of all questions, or Q times C_q, each question's own.

    Returns:
        (Q, C) float32, of a float64 model float64: natural logarithms, summed over each candidate's tokens. C is the
        largest C_q; what stands behind a question's own means nothing.
    """
    of_all = isinstance(candidates, Candidates)
    state = read_questions(backbone, batch)
    questions, device = len(state.logits), state.logits.device
    laid = side_by_side([candidates] if isinstance(candidates, Candidates) else candidates, device)
    sums = widened(state.logits).log_softmax(dim=-1).gather(1, laid.first.expand(questions, -1))
    if not laid.tokens.shape[1]:
        return sums
    fed = (laid.tokens, laid.depths, laid.tree_mask)
    states = branch(backbone, state, *((each[0] for each in fed) if of_all else fed))
    return add_later_tokens(backbone, sums, states, laid.targets, laid.owners)


def widened(logits: Tensor) -> Tensor:
    """Returns logits in float32, or in float64 if they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def add_later_tokens(backbone: Backbone, sums: Tensor, states: Tensor, targets: Tensor, owners: Tensor) -> Tensor:
    """Returns (Q, C): the log-probabilities of the first tokens with those of all later ones added.

    Args:
        backbone: The backbone, for its head.
        sums: (Q, C) of every candidate's first token.
        states: (Q, N, D) of the candidates' tokens, side by side.
        targets: (Q or 1, N) the token that follows each.
        owners: (Q or 1, N) the candidate of each; C counts for none.
    """
    sums = torch.nn.functional.pad(sums, (0, 1))
    for start in range(0, states.shape[1], ROWS_PER_LOGITS):
        rows = slice(start, start + ROWS_PER_LOGITS)
        logits = widened(backbone.logits(states[:, rows]))
        following, candidate = (each[:, rows].expand(len(states), -1) for each in (targets, owners))
        at_target = logits.gather(2, following[..., None])[..., 0]
        sums = sums.scatter_add(1, candidate, at_target - logits.logsumexp(dim=-1))
    return sums[:, :-1]
