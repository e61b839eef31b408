import logging
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.seed import isolate_rng
from typing_extensions import override

from lightning_m2pt.answering.decoding import GreedyAnswering
from lightning_m2pt.errors import BadInputError, DivergedError, EnvironmentFailure, M2PTError
from lightning_m2pt.inputs.batch import Batch, Span
from lightning_m2pt.inputs.collate import encoded_sample
from lightning_m2pt.inputs.images import open_image
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.tuning.positions import room_for_rows
from lightning_m2pt.visible_text import visible

LONGEST_TEXT = 300
"""Letters of a question or an answer that are shown."""
LONGEST_SIDE = 256
"""Pixels of a picture that is shown."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """A sample of the validation part as it is asked.

    Attributes:
        question: Its last question.
        truth: The answer that is right.
        batch: The question alone, as the model reads it.
        most_tokens: How long an answer may become.
    """

    question: str
    truth: str
    batch: Batch
    most_tokens: int


class SampleAnswers(Callback):
    """Writes to TensorBoard what the model answers to a few fixed samples, beside the truth, at every validation.

    It is part of every run with a validation part. In an experiment's file, under ``trainer.callbacks``, another one
    takes its place: ``{class_path: callbacks.sample_answers.SampleAnswers, init_args: {samples: 8}}``; of 0 samples
    there is none. Every process answers, because a sharded model needs them all; the first one writes. What is trained
    does not notice, and a sample that cannot be answered ends nothing but these answers.

    Args:
        samples: How many of the first validation samples are asked.
        max_new_tokens: How long an answer may become.

    Raises:
        BadInputError: If a number is out of range.
    """

    def __init__(self, samples: int = 4, max_new_tokens: int = 64) -> None:
        for key, value, least in (("samples", samples, 0), ("max_new_tokens", max_new_tokens, 1)):
            if value < least:
                raise BadInputError(
                    f"{value} is too few", where=f"trainer.callbacks.SampleAnswers.{key}", expected=f"at least {least}"
                )
        self.samples = samples
        self.max_new_tokens = max_new_tokens
        self._begin()

    def _begin(self) -> None:
        self._asked: list[Asked] | None = None
        self._pictures_are_shown = False
        self._has_failed = False

    @override
    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Forgets the samples of an earlier run with the same object."""
        if stage == "fit":
            self._begin()

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or not self.samples or self._has_failed:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        # Answers draw nothing; what opens a picture or writes an event might.
        with isolate_rng(include_cuda=pl_module.device.type == "cuda"):
            try:
                if self._asked is None:
                    self._asked = self._all_prepared(trainer, data, pl_module)
                answers = [answer_of(asked, data, pl_module) for asked in self._asked]
                text = as_markdown(self._asked, answers)
                for board in boards_of(trainer):
                    board.add_text("samples/answers", text, trainer.global_step)
            except (M2PTError, torch.OutOfMemoryError) as error:
                # What is wrong with model or samples is so on every rank. What this one alone lacks leaves the others
                # inside of an answer, where they would wait for this rank's shares.
                is_alone = not isinstance(error, BadInputError | DivergedError)
                if self._asked is not None and is_alone and pl_module.backbone.runs_in_lockstep:
                    raise
                self._has_failed = True
                log.warning("no more sample answers in TensorBoard: %s", " ".join(str(error).split())[:LONGEST_TEXT])

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"pictures_are_shown": self._pictures_are_shown}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._pictures_are_shown = state_dict["pictures_are_shown"]

    def _all_prepared(self, trainer: Trainer, data: Any, pl_module: Any) -> list[Asked]:
        """Returns the samples, on all ranks or on none: a rank that left them out would not answer with the others.

        Raises:
            M2PTError: What is wrong with one, here or on another rank.
        """
        asked, failed = [], None
        try:
            part = data.read_once()[1]
            chosen = [part[place] for place in range(min(self.samples, len(part)))]
            asked = [self._prepared(sample, data, pl_module) for sample in chosen]
            if not self._pictures_are_shown:
                self._write_pictures(trainer, chosen)
        except M2PTError as error:
            failed = error
        if trainer.strategy.reduce_boolean_decision(failed is not None, all=False):
            raise failed or EnvironmentFailure(
                "another process cannot prepare them", where="the samples that are asked"
            )
        return asked

    def _prepared(self, sample: Sample, data: Any, pl_module: Any) -> Asked:
        last = sample.turns[-1]
        asked = replace(sample, turns=(*sample.turns[:-1], Turn(last.question)))
        text = data.processor.encode_all([asked], data.template, with_answers=False)[0]
        batch: Batch = data.collator([encoded_sample(asked, text, data.processor, sample.source)])
        runs = pl_module.backbone.rows_of_runs(batch.pixel_values, batch.picture_sizes)
        rows = int((batch.spans != Span.PADDING).sum()) + sum(runs) - len(runs)
        room = room_for_rows(pl_module.backbone.shape, pl_module.method) - rows
        return Asked(last.question, last.answer, batch, min(self.max_new_tokens, room))

    def _write_pictures(self, trainer: Trainer, samples: list[Sample]) -> None:
        self._pictures_are_shown = True
        for board in boards_of(trainer):
            for number, sample in enumerate(samples, start=1):
                if sample.image is not None:
                    picture = open_image(sample.image, sample.source).convert("RGB")
                    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
                    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
                    shaped = pixels.reshape(picture.height, picture.width, 3)
                    board.add_image(f"samples/picture_{number}", shaped, trainer.global_step, dataformats="HWC")


def answer_of(asked: Asked, data: Any, pl_module: Any) -> str:
    """Returns what the model as it is answers; nothing where there is no room for an answer.

    Args:
        asked: The sample.
        data: The tuned data module.
        pl_module: The module, in evaluation mode.
    """
    if asked.most_tokens < 1:
        return ""
    answering = GreedyAnswering(data.processor, asked.most_tokens, data.template)
    with torch.no_grad():
        return answering.answer(pl_module.backbone, asked.batch.to(pl_module.device))[0].text


def boards_of(trainer: Trainer) -> list[Any]:
    """Returns the writers of all TensorBoards, on the process that writes."""
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def as_markdown(asked: list[Asked], answers: list[str]) -> str:
    """Returns a table of question, truth and answer, as TensorBoard shows it."""
    rows = [
        f"| {number} | {cell(each.question)} | {cell(each.truth)} | {cell(answer)} |"
        for number, (each, answer) in enumerate(zip(asked, answers, strict=True), start=1)
    ]
    return "\n".join(["| | question | truth | answer |", "| ---: | --- | --- | --- |", *rows])


def cell(text: str) -> str:
    """Returns a text of bearable length that stays in its cell of a Markdown table and drives nothing."""
    plain = visible(" ".join(text.split()))
    cut = plain if len(plain) <= LONGEST_TEXT else f"{plain[:LONGEST_TEXT]}…"
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]<>#|~" else letter for letter in cut)
