import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_m2pt.atomic_files import write_atomically
from lightning_m2pt.metrics.predictions import PREDICTION_FORMAT
from lightning_m2pt.types import Question


class PredictionWriter(Callback):
    """Writes ``<folder>/predictions/<set>.jsonl`` after a pass of ``predict`` over a benchmark.

    The data module is a benchmark: it has ``name``, ``rules``, ``template``, ``max_new_tokens``, ``data_revision``,
    ``classes``, ``questions()`` and ``processor``. Answers are joined to its questions by id, so the file is in the
    benchmark's order whatever the order of the batches was, and samples that a distributed sampler repeats count once.

    Args:
        folder: Where ``predictions/`` is, or shall be.
        adapter: What answers: an adapter's fingerprint, or None for the untouched model.
        toggles: The method's components as they were for this pass, knock-outs included.
    """

    def __init__(self, folder: Path, adapter: str | None, toggles: Mapping[str, bool | int | str]) -> None:
        self.folder = folder
        self.adapter = adapter
        self.toggles = dict(toggles)
        self._answers: dict[str, list[int]] = {}

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
        self._answers.update(outputs)

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: Any) -> None:
        token_ids = gathered(self._answers, trainer.world_size)
        self._answers = {}
        if not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        header = prediction_header(data, self.adapter, self.toggles, pl_module.backbone.dtype_name)
        questions = data.questions()
        answers = {question.id: data.processor.decode(token_ids[question.id]) for question in questions}
        path = prediction_file(self.folder, data.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, prediction_text(header, questions, answers).encode())


def prediction_header(
    data: Any, adapter: str | None, toggles: Mapping[str, bool | int | str], dtype: str
) -> dict[str, Any]:
    """Returns a prediction file's first line: everything that decides the answers, and nothing about their score.

    Args:
        data: The benchmark's data module.
        adapter: What answers: an adapter's fingerprint, or None for the untouched model.
        toggles: The method's components as they are for this pass, knock-outs included.
        dtype: Type of the frozen weights.
    """
    return {
        "format": PREDICTION_FORMAT,
        "benchmark": data.name,
        "template": data.template.name,
        "decoding": {"method": "greedy", "max_new_tokens": data.max_new_tokens, "dtype": dtype},
        "data_revision": data.data_revision,
        "adapter": adapter,
        "default_rule": data.rules[0],
        "toggles": dict(toggles),
        "classes": data.classes,
    }


def prediction_file(folder: Path, benchmark: str) -> Path:
    """Returns where a set's predictions stand."""
    return folder / "predictions" / f"{benchmark}.jsonl"


def prediction_text(header: Mapping[str, Any], questions: list[Question], answers: Mapping[str, str]) -> str:
    """Returns the file's content: the header, then one line a question.

    Raises:
        KeyError: If a question has no answer.
    """
    lines = [prediction_line(header["benchmark"], question, answers[question.id]) for question in questions]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in [header, *lines])


def prediction_line(benchmark: str, question: Question, answer: str) -> dict[str, Any]:
    """Returns one question's line; ``references`` is there only where the question has some."""
    line: dict[str, Any] = {
        "id": question.id,
        "set": benchmark,
        "subtask": question.subtask,
        "question": question.text,
        "answer": answer,
        "target": question.target,
        "image_id": question.image_id,
    }
    if question.references:
        line["references"] = list(question.references)
    return line


def gathered(answers: dict[str, list[int]], world_size: int) -> dict[str, list[int]]:
    """Returns the answers of all ranks; every rank has to call it."""
    if world_size == 1:
        return answers
    of_ranks: list[dict[str, list[int]]] = [{}] * world_size
    torch.distributed.all_gather_object(of_ranks, answers)
    return {name: ids for answers_of_rank in of_ranks for name, ids in answers_of_rank.items()}
