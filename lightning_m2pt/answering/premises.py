"""How likely candidate answers are where there is nothing to answer: what calibrated rules set against a question.

A premise is an input of no content: a question without one, or the words behind which the assistant answers. Each is
run by itself, once for all questions that have it and for each list of candidates, so that its numbers depend neither
on a batch nor on how processes share out the questions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_m2pt.answering.likelihood import Candidates, candidate_log_probabilities
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.collate import Collator, encoded_sample
from lightning_m2pt.inputs.picture_layout import RunRows
from lightning_m2pt.inputs.processing import EncodedText, Processor
from lightning_m2pt.inputs.samples import Sample
from lightning_m2pt.prompts.attachment import Attachment


@dataclass(frozen=True)
class Premise:
    """An input of no content.

    Attributes:
        sample: Its pictures, and what it is called.
        text: Its tokens, one for every picture, without an answer.
    """

    sample: Sample
    text: EncodedText


class Premises:
    """The premises of a set's questions.

    What was computed is kept as long as the same model with the same attachment is asked; an object belongs to one pass
    over a set, since it cannot see that a model was trained in between.

    Args:
        processor: Prepares pictures.
        known: The distinct premises.
        of_question: By a question's id the numbers of its premises; the empty id stands for every other one.
        as_shares: Every premise's probabilities are divided by their sum over the candidates, and what counts is their
            mean over a question's premises; False takes a question's one premise as it is.
        said: What prediction files say of the premises.
    """

    def __init__(
        self,
        processor: Processor,
        known: Sequence[Premise],
        of_question: Mapping[str, tuple[int, ...]],
        *,
        as_shares: bool,
        said: Mapping[str, Any],
    ) -> None:
        self.processor = processor
        self.known = known
        self.of_question = of_question
        self.as_shares = as_shares
        self.said = said
        self._computed: dict[tuple[int, tuple[tuple[int, ...], ...]], list[float]] = {}
        self._model: tuple[Backbone, Attachment | None] | None = None

    def log_probabilities(self, backbone: Backbone, like: Tensor, question: str, candidates: Candidates) -> list[float]:
        """Returns the logarithm of each candidate's probability without content.

        Args:
            backbone: The model as it is asked.
            like: A tensor on the device and of the type that pictures are given in.
            question: The question's id.
            candidates: C answers.
        """
        if self._model is None or self._model[0] is not backbone or self._model[1] is not backbone.attachment:
            self._model = backbone, backbone.attachment
            self._computed.clear()
        numbers = self.of_question.get(question) or self.of_question[""]
        found = [self._of_one(backbone, like, number, candidates) for number in numbers]
        if not self.as_shares:
            (only,) = found
            return only
        shares = torch.tensor(found, dtype=torch.float64).log_softmax(dim=1)
        mean: list[float] = (shares.logsumexp(dim=0) - math.log(len(found))).tolist()
        return mean

    def _of_one(self, backbone: Backbone, like: Tensor, number: int, candidates: Candidates) -> list[float]:
        key = number, candidates.token_ids
        if key not in self._computed:
            batch = self.batch_of(self.known[number], like)
            (sums,) = candidate_log_probabilities(backbone, batch, candidates).tolist()
            self._computed[key] = sums
        return self._computed[key]

    def batch_of(self, premise: Premise, like: Tensor) -> Batch:
        """Returns a premise as a batch of one."""
        where = f"{premise.sample.source}: sample {premise.sample.id}"
        encoded = encoded_sample(premise.sample, premise.text, self.processor, where)
        batch = Collator(self.processor.pad_token_id)([encoded])
        assert isinstance(batch, Batch)
        batch = batch.to(like.device)
        batch.pixel_values = batch.pixel_values.to(like.dtype)
        return batch

    def most_rows(self, run_rows: RunRows) -> int:
        """Returns how many rows the longest premise has in the language model.

        Args:
            run_rows: What a picture's rows are there.
        """
        layouts = (self.processor.layouts(each.sample.images, each.sample.source) for each in self.known)
        return max(
            len(each.text) + sum(run_rows.of(layout) - 1 for layout in of_sample)
            for each, of_sample in zip(self.known, layouts, strict=True)
        )
