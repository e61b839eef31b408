from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_m2pt.answering.partial_predictions import PartialPredictions
from lightning_m2pt.answering.prediction_line import prediction_line
from lightning_m2pt.inputs.samples import Question
from lightning_m2pt.metrics.predictions import ASKED_WITH, OF_QUESTIONS, PREDICTION_FORMAT, SHARED_WITH_TASKS


class PredictionWriter(Callback):
    """Appends every batch's answers to this process's partial file in a pass of ``predict`` over a benchmark.

    Args:
        partial: The partial prediction files; ``partial.finish`` makes one file of them after the pass.
        questions: The benchmark's questions.
    """

    def __init__(self, partial: PartialPredictions, questions: Iterable[Question]) -> None:
        self.partial = partial
        self.questions = {question.id: question for question in questions}

    @override
    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        benchmark = self.partial.header["benchmark"]
        dtype = self.partial.header.get("decoding", {}).get("dtype", "float32")
        lines = [prediction_line(benchmark, self.questions[name], answer, dtype) for name, answer in outputs]
        self.partial.append(lines, trainer.global_rank)


def prediction_header(
    data: Any, adapter: str | None, toggles: Mapping[str, bool | int | str], decoding: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns a prediction file's first line: everything that decides the answers, and nothing about their score.

    Args:
        data: The benchmark's data module.
        adapter: What answers: an adapter's fingerprint, or None for the untouched model.
        toggles: The method's components as they are for this pass, knock-outs included.
        decoding: How answers are made, and the type of the frozen weights.
    """
    questions = len(data.questions())
    header = {
        "format": PREDICTION_FORMAT,
        "benchmark": data.name,
        "template": data.template.name,
        "decoding": dict(decoding),
        "data_revision": data.data_revision,
        "questions": questions,
        "adapter": adapter,
        "default_rule": data.rules[0],
        "toggles": dict(toggles),
        "classes": data.classes,
    }
    if data.shared_with_tasks:
        header[SHARED_WITH_TASKS] = dict(data.shared_with_tasks)
    if data.asked_with:
        header[ASKED_WITH] = data.asked_with
    if questions < data.number_of_all_questions:
        header[OF_QUESTIONS] = data.number_of_all_questions
    return header | ({"examples": data.examples()} if data.examples() else {})


def prediction_file(folder: Path, benchmark: str) -> Path:
    """Returns where a set's predictions stand."""
    return folder / "predictions" / f"{benchmark}.jsonl"
