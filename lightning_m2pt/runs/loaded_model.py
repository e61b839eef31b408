"""A loaded run, or an untouched backbone, that answers any question about any picture: no data module, no Trainer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch

from lightning_m2pt.answering.decoding import GreedyAnswering
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.collate import Collator, encoded_sample
from lightning_m2pt.inputs.named_templates import Template, template_named
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.inputs.template_notices import say_notices
from lightning_m2pt.runs.tuned_model import tuned_model
from lightning_m2pt.system.checkout import checkout_module
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.module import TuningModule


@dataclass(frozen=True)
class Asked:
    """One question: its text, its picture ((H, W, 3) uint8), and where it comes from, for errors."""

    text: str
    image: numpy.ndarray
    source: str


@dataclass(frozen=True)
class AnswerLoss:
    """How likely an answer is: the mean cross-entropy of its tokens, and whether greedy decoding would give them."""

    mean: float
    is_greedy: bool


class LoadedModel:
    """Answers questions with a model's weights as they are.

    Args:
        model: It is loaded, with its method attached.
        template: The conversation form that questions are put into.
        device: Where it runs.
    """

    def __init__(self, model: TuningModule, template: Template, device: torch.device) -> None:
        self.backbone = model.to(device).eval().backbone
        self.processor = self.backbone.processor()
        say_notices(self.processor, [template])
        self.template = template
        self.device = device
        for use in ("training", "answering"):  # likelihoods are the losses of training
            model.compare_with_library(use)

    def answers(self, questions: Sequence[Asked], max_new_tokens: int) -> list[str]:
        """Returns the greedy answer to every question, all answered as one batch."""
        batch = self.batch(questions, [""] * len(questions))
        answers = GreedyAnswering(self.processor, max_new_tokens, self.template).answer(self.backbone, batch)
        return [answer.text for answer in answers]

    @torch.inference_mode()
    def losses(self, questions: Sequence[Asked], answers: Sequence[str]) -> list[AnswerLoss]:
        """Returns how likely each given answer is, its end token left out.

        Raises:
            BadInputError: If an answer is empty.
        """
        for question, answer in zip(questions, answers, strict=True):
            if not answer:
                raise BadInputError("an empty answer has no likelihood", where=question.source, expected="a text")
        rows = supervised_rows(self.backbone, self.batch(questions, answers))
        found = []
        for sample in range(len(questions)):
            of_answer = (rows.sample == sample).nonzero()[:-1, 0]
            mean = float(rows.losses[of_answer].mean())
            found.append(AnswerLoss(mean, bool(rows.right[of_answer].all())))
        return found

    def batch(self, questions: Sequence[Asked], answers: Sequence[str]) -> Batch:
        """Returns questions as one batch on the device; without answers if they are empty."""
        samples = [
            Sample(str(place), asked.image, asked.source, (Turn(asked.text, answer),), ("",), asked.source)
            for place, (asked, answer) in enumerate(zip(questions, answers, strict=True))
        ]
        texts = self.processor.encode_all(samples, self.template, with_answers=all(answers))
        encoded = [
            encoded_sample(sample, text, self.processor, sample.source)
            for text, sample in zip(texts, samples, strict=True)
        ]
        batch = Collator(self.processor.pad_token_id)(encoded)
        assert isinstance(batch, Batch)
        return batch.to(self.device)


def load_model(run: str, config: str, template: str, device: torch.device, adapter: str = "") -> LoadedModel:
    """Loads a tuned run, an adapter by itself, or the untouched backbone of an experiment that tunes nothing.

    Args:
        run: A run's folder, or empty.
        config: An experiment's file, or empty; it needs a checkout of the project.
        template: Name of the conversation template; empty takes that of the first evaluation set, or the one that an
            adapter, or a run without sets, was tuned with.
        device: Where it runs.
        adapter: An adapter's folder, or empty; ``config`` says what its base is where it does not.

    Raises:
        BadInputError: If not one of ``run``, ``config`` and ``adapter``, or the last two, are given, or something is
            missing or does not fit; known before weights are loaded.
    """
    if run and adapter:
        raise BadInputError("a run has its own", where="adapter", expected="adapter=DIR without run=DIR")
    if bool(run) == bool(config or adapter):
        raise BadInputError(
            "both are given" if run else "neither is given",
            where="run, config",
            expected="run=outputs/EXPERIMENT/RUN for a tuned model, or config=experiments/frozen.yaml",
        )
    tuned = tuned_model(Path(run) if run else None, Path(adapter) if adapter else None)
    if run or adapter:
        model = tuned.model(["--config", config] if config else [], f"adapter={adapter}")
        own: Template | None = None if template else tuned.template()
    else:
        model, own = untouched_model(config)
    chosen = template_named(template) if template else own
    if chosen is None:
        raise BadInputError("the experiment has no evaluation set", where="template", expected="template=NAME")
    model.backbone.check_files()
    tuned.load(model, [model.backbone.processor().bound(chosen).label])
    return LoadedModel(model, chosen, device)


def untouched_model(config: str) -> tuple[TuningModule, Template | None]:
    """Returns the model of an experiment that tunes nothing, and its first set's template, if there is a set.

    Raises:
        BadInputError: If there is no checkout to read the file with, or the experiment's method has to be tuned first.
    """
    experiment = checkout_module("experiments.configuration.cli", f"config={config}").parse_experiment(
        ["--config", config]
    )
    if experiment.model.method.part_names():
        raise BadInputError("this experiment's method has to be tuned first", where=config, expected="run=DIR")
    return experiment.model, next((benchmark.template for benchmark in experiment.benchmarks), None)
