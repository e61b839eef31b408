"""The two ways to answer a question: greedy decoding, and the most likely of several candidate answers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor

from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.answering.likelihood import Candidates, candidate_log_probabilities
from lightning_m2pt.answering.premises import Premises
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import DivergedError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.named_templates import Template
from lightning_m2pt.inputs.picture_batch import PictureBatch
from lightning_m2pt.inputs.processing import Processor

AnsweringMethod = Literal["greedy", "likelihood_sum", "likelihood_mean", "contextual_calibration", "likelihood_pmi"]
LikelihoodMethod = Literal["likelihood_sum", "likelihood_mean", "contextual_calibration", "likelihood_pmi"]


@dataclass  # not frozen: Lightning rebuilds what `predict` returns, field by field
class Answer:
    """What a model answers to one question.

    Attributes:
        text: The answer.
        margin: How far the second choice is behind: the smallest difference of logits of a decoded answer, the
            difference of what is compared of a chosen candidate.
        log_probabilities: The summed log-probability of every candidate; empty for a decoded answer.
        premise_log_probabilities: The same without content, where a rule sets one against the other.
    """

    text: str
    margin: float
    log_probabilities: Mapping[str, float] = field(default_factory=dict)
    premise_log_probabilities: Mapping[str, float] = field(default_factory=dict)


def refuse_not_finite(values: Iterable[float]) -> None:
    """Refuses what a model with numbers that are not finite computes.

    Raises:
        DivergedError: If a value is infinite or no number.
    """
    if not all(map(math.isfinite, values)):
        raise DivergedError(
            "the model computes infinite numbers, or what is no number",
            where="model",
            expected="finite logits",
            hint="take a wider model.backbone.dtype, or another adapter",
        )


class Answering(Protocol):
    """A way to answer a batch of questions."""

    def answer(self, backbone: Backbone, batch: Batch | PictureBatch) -> list[Answer]:
        """Returns one answer for each of the batch's ``sample_ids``.

        Raises:
            DivergedError: If the model's numbers are not finite: whatever it seems to answer means nothing.
        """

    @property
    def most_tokens(self) -> int:
        """The most tokens that an answer takes."""

    def description(self) -> dict[str, Any]:
        """Returns what decides the answers beside model and question, as prediction files carry it."""


@dataclass(frozen=True)
class GreedyAnswering:
    """The most likely token at each step, until the end token or the limit.

    Attributes:
        processor: The backbone's tokenizer.
        max_new_tokens: Limit on an answer's tokens, the end token included.
        template: What the questions are written in; it says which tokens end an answer.
    """

    processor: Processor
    max_new_tokens: int
    template: Template

    def answer(self, backbone: Backbone, batch: Batch | PictureBatch) -> list[Answer]:
        """Decodes one answer for each of the batch's ``sample_ids``; the same question is answered once."""
        ends = self.processor.bound(self.template).end_token_ids
        decoded = greedy_answers(backbone, batch, self.max_new_tokens, *ends)
        if isinstance(batch, PictureBatch):
            decoded = batch.of_every_name(decoded)
        refuse_not_finite(one.margin for one in decoded)
        return [Answer(self.processor.decode(one.token_ids), one.margin) for one in decoded]

    @property
    def most_tokens(self) -> int:
        """The limit."""
        return self.max_new_tokens

    def description(self) -> dict[str, Any]:
        """Returns the method, the limit and, where there are several, the tokens that end an answer."""
        ends = self.processor.bound(self.template).end_token_ids
        several = {"end_token_ids": list(ends)} if len(ends) > 1 else {}
        return {"method": "greedy", "max_new_tokens": self.max_new_tokens, **several}


@dataclass(frozen=True)
class LikelihoodAnswering:
    """The candidate answer of the highest log-probability.

    Attributes:
        candidates: The answers to choose from.
        method: ``likelihood_sum`` compares sums over a candidate's tokens, its end token included, which is how likely
            the model is to answer exactly that; ``likelihood_mean`` means over them, which does not favour short ones.
            ``contextual_calibration`` and ``likelihood_pmi`` compare these sums less those behind a premise.
        premises: What the two set against a question; None for the others.
    """

    candidates: Candidates
    method: LikelihoodMethod
    premises: Premises | None = None

    def answer(self, backbone: Backbone, batch: Batch | PictureBatch) -> list[Answer]:
        """Returns the best candidate for each of the batch's ``sample_ids``; of equal ones the first."""
        sums: list[list[float]] = candidate_log_probabilities(backbone, batch, self.candidates).tolist()
        if isinstance(batch, PictureBatch):
            sums = batch.of_every_name(sums)
        refuse_not_finite(value for of_question in sums for value in of_question)
        asked = zip(batch.sample_ids, sums, strict=True)
        return [self.best(backbone, batch.pixel_values, name, of_question) for name, of_question in asked]

    def best(self, backbone: Backbone, like: Tensor, name: str, sums: Sequence[float]) -> Answer:
        """Returns the best candidate for one question."""
        return best_candidate(
            self.candidates, sums, self.method, premise_of(self.premises, backbone, like, name, self.candidates)
        )

    @property
    def most_tokens(self) -> int:
        """The longest candidate's tokens."""
        return max(self.candidates.lengths)

    def description(self) -> dict[str, Any]:
        """Returns the method, the candidates and their tokens, and the premises."""
        tokens = dict(zip(self.candidates.texts, self.candidates.lengths, strict=True))
        said = {} if self.premises is None else self.premises.said
        return {"method": self.method, "candidate_tokens": tokens, **said}


def premise_of(
    premises: Premises | None, backbone: Backbone, like: Tensor, name: str, candidates: Candidates
) -> list[float]:
    """Returns what a rule takes away from each candidate's log-probability; nothing where it takes nothing away.

    Raises:
        DivergedError: If the model's numbers are not finite.
    """
    if premises is None:
        return []
    found = premises.log_probabilities(backbone, like, name, candidates)
    refuse_not_finite(found)
    return found


def best_candidate(
    candidates: Candidates, sums: Sequence[float], method: AnsweringMethod, premise: Sequence[float] = ()
) -> Answer:
    """Returns the candidate of the highest log-probability; of equal ones the first.

    Args:
        candidates: C answers.
        sums: The summed log-probability of each.
        method: What is compared; ``likelihood_mean`` divides the sums by the candidates' tokens.
        premise: The log-probability of each without content, which is taken away from its sum; or none.
    """
    compared = list(sums)
    if method == "likelihood_mean":
        compared = [total / tokens for total, tokens in zip(sums, candidates.lengths, strict=True)]
    if premise:
        compared = [total - without for total, without in zip(compared, premise, strict=True)]
    first, second = sorted(range(len(compared)), key=lambda number: -compared[number])[:2]
    texts = candidates.texts
    of_premise = dict(zip(texts, premise, strict=True)) if premise else {}
    return Answer(texts[first], compared[first] - compared[second], dict(zip(texts, sums, strict=True)), of_premise)
