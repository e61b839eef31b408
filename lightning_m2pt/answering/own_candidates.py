"""Log-probabilities where every question has candidate answers of its own, as multiple choice has.

As with candidates that are the same for all questions, those of a question stand side by side behind it in one forward
pass; each question's are its own, padded to the most tokens that a question of the batch has.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from lightning_m2pt.answering.decoding import Answer, best_candidate, refuse_not_finite
from lightning_m2pt.answering.decoding_steps import branch
from lightning_m2pt.answering.greedy import read_questions
from lightning_m2pt.answering.likelihood import ROWS_PER_LOGITS, Candidates, side_by_side
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.picture_batch import PictureBatch


@dataclass(frozen=True)
class OwnCandidateAnswering:
    """Each question's candidate of the highest log-probability.

    Attributes:
        candidates: The answers to choose from, by question id.
        method: As in ``LikelihoodAnswering``.
    """

    candidates: Mapping[str, Candidates]
    method: Literal["likelihood_sum", "likelihood_mean"]

    @property
    def most_tokens(self) -> int:
        """The longest candidate's tokens."""
        return max((max(each.lengths) for each in self.candidates.values()), default=0)

    def answer(self, backbone: Backbone, batch: Batch | PictureBatch) -> list[Answer]:
        """Returns the best candidate for each of the batch's ``sample_ids``; of equal ones the first.

        Questions with the same picture and words are one question of a picture batch, but may differ in candidates:
        then all of theirs are compared, and each takes its own.
        """
        asked = [self.candidates[name] for name in batch.sample_ids]
        if isinstance(batch, PictureBatch):
            together = all_of_each_question(asked, batch.question_of_sample)
            found = batch.of_every_name(own_log_probabilities(backbone, batch, together))
            laid = batch.of_every_name(together)
        else:
            found, laid = own_log_probabilities(backbone, batch, asked), asked
        refuse_not_finite(value for of_question in found for value in of_question)
        answers = []
        for own, candidates, values in zip(asked, laid, found, strict=True):
            by_text = dict(zip(candidates.texts, values, strict=True))
            answers.append(best_candidate(own, [by_text[text] for text in own.texts], self.method))
        return answers

    def description(self) -> dict[str, Any]:
        """Returns the method, and a hash of every question's candidates."""
        texts = {name: each.texts for name, each in self.candidates.items()}
        digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()
        return {"method": self.method, "own_candidates_sha256": digest}


@torch.inference_mode()
def own_log_probabilities(
    backbone: Backbone, batch: Batch | PictureBatch, candidates: Sequence[Candidates]
) -> list[list[float]]:
    """Returns the log-probability of every candidate of every question.

    Args:
        backbone: A loaded backbone, with or without an attached method; for a picture batch one that shares prefixes.
        batch: Q questions without answers, padded on the right, or pictures and their Q distinct questions.
        candidates: Q times C_q candidate answers.

    Returns:
        For every question the natural logarithms of its candidates, summed over their tokens, end token included.
    """
    state = read_questions(backbone, batch)
    device = state.logits.device
    laid = [side_by_side(each, torch.device("cpu")) for each in candidates]
    width, most = max(len(fed) for fed, *_ in laid), max(len(each.texts) for each in candidates)
    tokens, depths, targets = (torch.zeros(len(laid), width, dtype=torch.long) for _ in range(3))
    owners = torch.full((len(laid), width), most)  # padding counts for nobody
    tree_mask = torch.eye(width, dtype=torch.bool).repeat(len(laid), 1, 1)
    first = torch.zeros(len(laid), most, dtype=torch.long)
    for number, (fed, places, seen, following, owner) in enumerate(laid):
        own = slice(0, len(fed))
        tokens[number, own], depths[number, own], targets[number, own] = fed, places, following
        owners[number, own], tree_mask[number, own, own] = owner, seen
        starts = [ids[0] for ids in candidates[number].token_ids]
        first[number, : len(starts)] = torch.tensor(starts)
    tokens, depths, targets, owners, tree_mask, first = (
        each.to(device) for each in (tokens, depths, targets, owners, tree_mask, first)
    )
    sums = state.logits.float().log_softmax(dim=-1).gather(1, first)
    sums = torch.nn.functional.pad(sums, (0, 1))
    if width:
        states = branch(backbone, state, tokens, depths, tree_mask)
        for start in range(0, width, ROWS_PER_LOGITS):
            rows = slice(start, start + ROWS_PER_LOGITS)
            later = backbone.logits(states[:, rows]).float()
            at_target = later.gather(2, targets[:, rows, None])[..., 0]
            sums = sums.scatter_add(1, owners[:, rows], at_target - later.logsumexp(dim=-1))
    return [values[: len(each.texts)] for values, each in zip(sums.tolist(), candidates, strict=True)]


def all_of_each_question(asked: Sequence[Candidates], question_of_sample: Sequence[int]) -> list[Candidates]:
    """Returns for each distinct question the candidates of all its names, each once."""
    tokens: list[dict[str, tuple[int, ...]]] = [{} for _ in range(max(question_of_sample) + 1)]
    for candidates, question in zip(asked, question_of_sample, strict=True):
        tokens[question] |= dict(zip(candidates.texts, candidates.token_ids, strict=True))
    return [Candidates(tuple(each), tuple(each.values())) for each in tokens]
