"""One of the embedded backbones, loaded, with the samples that prompts are searched on and looked at with."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy
import torch

from benchmarks.learning.prompt_words.setting import BACKBONES, Setting
from experiments.configuration.cli import Experiment, parse_experiment
from experiments.runs.prepare import check_experiment
from experiments.runs.training import tuning_data
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.inputs.collate import encoded_sample
from lightning_m2pt.inputs.named_templates import PromptFile, Template
from lightning_m2pt.inputs.reworded_template import PromptText
from lightning_m2pt.inputs.samples import Sample
from lightning_m2pt.prompt_search.allowed_tokens import AllowedTokens, allowed_tokens
from lightning_m2pt.prompt_search.placing import question_text
from lightning_m2pt.prompt_search.prompt_texts import PromptTexts
from lightning_m2pt.prompt_search.scored_samples import batch_of, scored_samples
from lightning_m2pt.prompt_search.scorer import PromptScorer
from lightning_m2pt.tuning.losses import supervised_rows

CONFIG = "experiments/frozen.yaml"
SAMPLES_AT_ONCE = 16
ORDER_OF_PICTURES = 17
"""Seed that decides which pictures are held out: the same for all seeds and backbones."""


@dataclass(frozen=True)
class Outcomes:
    """What a text makes of samples.

    Attributes:
        losses: Of each sample the cross-entropy, summed over its supervised tokens.
        right: Of each sample whether every supervised token is the most likely one.
    """

    losses: list[float]
    right: list[float]


@dataclass
class Base:
    """A loaded backbone without any method.

    Attributes:
        name: Of ``BACKBONES``.
        experiment: The untouched model's.
        setting: Sizes.
    """

    name: str
    experiment: Experiment
    setting: Setting

    @property
    def backbone(self) -> Backbone:
        """The model."""
        return self.experiment.model.backbone

    @property
    def template(self) -> Template:
        """How conversations become texts without a prompt."""
        return tuning_data(self.experiment).template

    @cached_property
    def split(self) -> list[Sample]:
        """The validation split of the tuned tasks."""
        return list(tuning_data(self.experiment).read_once()[1])

    @cached_property
    def held_out(self) -> list[Sample]:
        """The samples of some pictures, of which no prompt is searched on any."""
        return held_out_samples(self.split, self.setting.held_out)

    def searched(self, seed: int) -> list[Sample]:
        """Returns the samples that a seed's prompts are searched on."""
        pictures = {sample.image_id for sample in self.held_out}
        left = [sample for sample in self.split if sample.image_id not in pictures]
        order = numpy.random.default_rng([seed, len(left)]).permutation(len(left))[: self.setting.searched]
        return [left[place] for place in sorted(order.tolist())]

    @cached_property
    def allowed(self) -> AllowedTokens:
        """What prompts may be made of: the same for all seeds."""
        return allowed_tokens(self.unopened(self.held_out), self.split, answer_words=False)

    def unopened(self, samples: Sequence[Sample]) -> PromptTexts:
        """Returns conversations without the places of a prompt."""
        data = tuning_data(self.experiment)
        return PromptTexts(samples, data.processor, data.template, self.setting.position, data.max_text_length)

    def texts_of(self, samples: Sequence[Sample]) -> PromptTexts:
        """Returns conversations in which prompts can be put."""
        texts = self.unopened(samples)
        texts.open(self.allowed.ids)
        return texts

    def scorer_of(self, texts: PromptTexts) -> PromptScorer:
        """Returns what scores prompts on opened conversations."""
        processor = tuning_data(self.experiment).processor
        return PromptScorer(self.backbone, processor, scored_samples(texts, self.backbone), self.setting.length)

    def outcomes(self, samples: Sequence[Sample], text: PromptText) -> Outcomes:
        """Returns what a text makes of samples, by the pass that trains."""
        processor = tuning_data(self.experiment).processor
        template = PromptFile("prompt", text, None).on(self.template)
        encoded = processor.encode_all(samples, template)
        losses, right = [], []
        for begin in range(0, len(samples), SAMPLES_AT_ONCE):
            some = samples[begin : begin + SAMPLES_AT_ONCE]
            ready = [
                encoded_sample(sample, each, processor, sample.source)
                for sample, each in zip(some, encoded[begin : begin + SAMPLES_AT_ONCE], strict=True)
            ]
            with torch.inference_mode():
                rows = supervised_rows(self.backbone, batch_of(ready, processor, self.backbone))
            sums = torch.zeros(len(some), dtype=torch.float64).index_add_(0, rows.sample, rows.losses.double())
            losses += sums.tolist()
            wrong = set(rows.sample[~rows.right].tolist())
            right += [float(place not in wrong) for place in range(len(some))]
        return Outcomes(losses, right)

    def text_with(self, words: str) -> PromptText:
        """Returns the text that puts words where this comparison's prompts stand."""
        return PromptText(question=question_text(self.setting.position, words))

    def tokens_of(self, samples: Sequence[Sample]) -> list[int]:
        """Returns how many tokens of each sample are supervised; a prompt changes none of them."""
        processor = tuning_data(self.experiment).processor
        return [text.supervised_tokens for text in processor.encode_all(samples, self.template)]


def words_of_backbone(name: str) -> list[str]:
    """Returns the command-line words of the untouched model."""
    return ["--config", CONFIG, *([] if name == BACKBONES[0] else ["--config", f"experiments/backbones/{name}.yaml"])]


def loaded_base(name: str, setting: Setting) -> Base:
    """Returns a loaded backbone, its passes compared with the libraries'."""
    experiment = parse_experiment([*words_of_backbone(name), "--benchmarks", "[]"])
    check_experiment(experiment)
    model = experiment.model
    model.configure_model()
    model.eval()
    model.compare_with_library("training")
    model.compare_with_library("answering")
    return Base(name, experiment, setting)


def held_out_samples(split: Sequence[Sample], number: int) -> list[Sample]:
    """Returns samples of pictures in an order that is drawn once, so many of them."""
    names = sorted({sample.image_id for sample in split})
    order = numpy.random.default_rng(ORDER_OF_PICTURES).permutation(len(names))
    rank = {names[place]: position for position, place in enumerate(order.tolist())}
    return sorted(split, key=lambda sample: rank[sample.image_id])[:number]
