"""Answering where every question has candidate answers of its own, as multiple choice has."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_m2pt.answering.decoding import (
    Answer,
    LikelihoodMethod,
    best_candidate,
    premise_of,
    refuse_not_finite,
)
from lightning_m2pt.answering.likelihood import Candidates, candidate_log_probabilities
from lightning_m2pt.answering.premises import Premises
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.picture_batch import PictureBatch


@dataclass(frozen=True)
class OwnCandidateAnswering:
    """Each question's candidate of the highest log-probability.

    Attributes:
        candidates: The answers to choose from, by question id.
        method: As in ``LikelihoodAnswering``.
        premises: As there.
    """

    candidates: Mapping[str, Candidates]
    method: LikelihoodMethod
    premises: Premises | None = None

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
        for name, own, candidates, values in zip(batch.sample_ids, asked, laid, found, strict=True):
            by_text = dict(zip(candidates.texts, values, strict=True))
            premise = premise_of(self.premises, backbone, batch.pixel_values, name, own)
            answers.append(best_candidate(own, [by_text[text] for text in own.texts], self.method, premise))
        return answers

    def description(self) -> dict[str, Any]:
        """Returns the method, a hash of every question's candidates, and the premises."""
        texts = {name: each.texts for name, each in self.candidates.items()}
        digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()
        said = {} if self.premises is None else self.premises.said
        return {"method": self.method, "own_candidates_sha256": digest, **said}


def own_log_probabilities(
    backbone: Backbone, batch: Batch | PictureBatch, candidates: Sequence[Candidates]
) -> list[list[float]]:
    """Returns for each of Q questions the log-probabilities of its own candidates, as ``likelihood`` has them."""
    sums = candidate_log_probabilities(backbone, batch, candidates).tolist()
    return [values[: len(each.texts)] for values, each in zip(sums, candidates, strict=True)]


def all_of_each_question(asked: Sequence[Candidates], question_of_sample: Sequence[int]) -> list[Candidates]:
    """Returns for each distinct question the candidates of all its names, each once."""
    tokens: list[dict[str, tuple[int, ...]]] = [{} for _ in range(max(question_of_sample) + 1)]
    for candidates, question in zip(asked, question_of_sample, strict=True):
        tokens[question] |= dict(zip(candidates.texts, candidates.token_ids, strict=True))
    return [Candidates(tuple(each), tuple(each.values())) for each in tokens]
