"""The small callbacks, each on a toy of three lines."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from callbacks.ablation_toggles import AblationToggles
from callbacks.gradient_check import GradientCheck, without_gradient
from callbacks.loggers import METRICS_FILE, StepMetrics
from callbacks.padding_share import PaddingShare
from callbacks.parameter_table import ParameterTable
from callbacks.predictions import PredictionWriter, prediction_file, prediction_header
from callbacks.progress import SampleProgressBar
from callbacks.prompt_statistics import PromptStatistics, mean_row_norm
from callbacks.task_loss import TaskLosses
from lightning_m2pt.answering.decoding import Answer
from lightning_m2pt.answering.partial_predictions import PartialPredictions
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import BadInputError, DivergedError
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.inputs.samples import Question
from lightning_m2pt.methods.parameter_part import ParameterPart
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.prompts.deep import DeepPrompts
from lightning_m2pt.storage.run_record import read_run_record
from lightning_m2pt.tuning.losses import TaskLoss
from tests.callbacks.test_step_checkpoint import WIDTH, collate, loader


class ToyMethod(nn.Module):
    """Two prompt rows, of which the first adds to the loss only if asked to."""

    name = "toy"
    built_shapes: dict[str, tuple[int, ...]] | None = None

    def __init__(self, dead: dict[str, list[int]]) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.ones(2, WIDTH))
        self.dead = dead

    def parts(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        return {"visual_prompts": [("prompts", self.prompts)]}

    def named_tensors(self) -> dict[str, nn.Parameter]:
        return {"prompts": self.prompts}

    def dead_rows(self) -> dict[str, list[int]]:
        return self.dead

    def may_start_without_gradient(self) -> set[str]:
        return set()

    def parameter_parts(self) -> list[ParameterPart]:
        return [ParameterPart("visual_prompts", 10, 10, 5, ["prompts row 0"])]

    def toggles(self) -> dict[str, bool | int | str]:
        return {"interaction": True, "visual_length": 2}


class MethodToy(LightningModule):
    """Trains a toy method; may fail in chosen ways."""

    def __init__(self, dead: dict[str, list[int]] | None = None, used_rows: int = 2, factor: float = 1.0) -> None:
        super().__init__()
        self.method = ToyMethod(dead or {})
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.used_rows = used_rows
        self.factor = factor

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        used = self.method.prompts[: self.used_rows]
        loss = (batch.pixel_values @ used.T).square().mean() * self.factor
        tasks = [TaskLoss("count" if batch_idx % 2 else "colour", 4.0 + batch_idx, 2)]
        self.log("train/loss", float(loss.detach()), prog_bar=True)
        return {"loss": loss, "task_losses": tasks, "samples": len(batch)}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.method.prompts], lr=0.1)


def fit(toy: LightningModule, callbacks: list[Callback], steps: int = 3, folder: Path | None = None) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=callbacks,
        logger=[StepMetrics(folder / METRICS_FILE, 0)] if folder else False,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=any(isinstance(callback, SampleProgressBar) for callback in callbacks),
        enable_model_summary=False,
    )
    trainer.fit(toy, loader(1))
    return trainer


def test_the_gradient_check_lets_a_sound_step_pass_and_logs_the_norm(tmp_path: Path) -> None:
    fit(MethodToy(), [GradientCheck()], folder=tmp_path)
    assert "train/gradient_norm" in (tmp_path / METRICS_FILE).read_text().splitlines()[0].split(",")


def test_a_row_without_gradient_is_named_unless_it_is_declared_dead() -> None:
    with pytest.raises(BadInputError, match="prompts row 1") as caught:
        fit(MethodToy(used_rows=1), [GradientCheck()])
    assert len(str(caught.value).splitlines()) == 3
    fit(MethodToy(used_rows=1, dead={"prompts": [1]}), [GradientCheck()])


def test_a_tensor_without_gradient_is_named_once() -> None:
    shapes = {"matrix": (2, 3), "vector": (3,), "stack": (2, 3, 4)}
    stack = torch.zeros(2, 3, 4)
    stack[1, 2, 0] = 1
    assert without_gradient(shapes, {"stack": stack}, {}) == ["matrix", "vector", "stack row 0", "stack row 1"]
    assert without_gradient(shapes, {"stack": stack}, {"matrix": [0, 1], "vector": [0], "stack": [0, 1]}) == []


def test_what_may_start_without_gradient_must_be_reached_but_may_be_zero() -> None:
    shapes = dict.fromkeys(["some_rows", "all_zero", "not_reached"], (3, 2))
    gradients = {"some_rows": torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), "all_zero": torch.zeros(3, 2)}
    assert without_gradient(shapes, gradients, {}, {"some_rows", "all_zero", "not_reached"}) == ["not_reached"]
    assert without_gradient(shapes, gradients, {}, {"not_reached"})[-2:] == ["all_zero", "not_reached"]
    assert without_gradient(shapes, gradients, {}, set())[:2] == ["some_rows row 0", "some_rows row 2"]


@pytest.mark.parametrize("excused", [set(), {"prompts"}], ids=["not declared", "declared"])
def test_the_excuse_ends_with_the_method_that_declares_it(monkeypatch: pytest.MonkeyPatch, excused: set[str]) -> None:
    monkeypatch.setattr(ToyMethod, "may_start_without_gradient", lambda _: excused)
    with nullcontext() if excused else pytest.raises(BadInputError, match="prompts row 1"):
        fit(MethodToy(used_rows=1), [GradientCheck()])
    with pytest.raises(DivergedError):  # a gradient that is not finite has no excuse
        fit(MethodToy(factor=float("inf")), [GradientCheck()])


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_step_and_samples(factor: float) -> None:
    toy = MethodToy(factor=factor)
    with pytest.raises(DivergedError, match=r"step 1: .*sample-") as caught:
        fit(toy, [GradientCheck()])
    assert caught.value.exit_code == 4
    assert torch.equal(toy.method.prompts, torch.ones(2, WIDTH))


class PoisonedGradient(Callback):
    """Makes the gradient of the second step infinite while its loss is finite."""

    def on_after_backward(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.global_step == 1:
            pl_module.method.prompts.grad[0, 0] = float("inf")


def test_a_gradient_that_is_not_finite_stops_too() -> None:
    with pytest.raises(DivergedError, match="step 2"):
        fit(MethodToy(), [PoisonedGradient(), GradientCheck()])


def test_prompt_statistics_are_logged_by_part(tmp_path: Path) -> None:
    fit(MethodToy(), [PromptStatistics(every_n_steps=1)], folder=tmp_path)
    header, first = (line.split(",") for line in (tmp_path / METRICS_FILE).read_text().splitlines()[:2])
    row = dict(zip(header, first, strict=True))
    assert float(row["train/row_norm/visual_prompts"]) == pytest.approx(WIDTH**0.5)
    assert float(row["train/gradient_row_norm/visual_prompts"]) > 0
    assert mean_row_norm([torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([8.0, 6.0])]) == 5


def test_task_losses_are_averaged_over_the_window(tmp_path: Path) -> None:
    fit(MethodToy(), [TaskLosses(steps=2, every_n_steps=1)], folder=tmp_path)
    lines = [line.split(",") for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    assert [row["train/loss_of_task/colour"] for row in rows] == ["2.0", "2.0", "3.0"]
    assert rows[1]["train/loss_of_task/count"] == "2.5"


def batch_of_lengths(*lengths: int) -> Batch:
    spans = torch.full((len(lengths), max(lengths)), int(Span.QUESTION))
    for row, length in zip(spans, lengths, strict=True):
        row[length:] = int(Span.PADDING)
    ids, names = spans.clone(), [str(length) for length in lengths]
    ids[:, 0] = IMAGE_TOKEN_ID
    return Batch(torch.zeros(len(ids), 3, 2, 2), ids, spans, spans, names, [("task",)] * len(ids))


def test_the_padding_share_is_that_of_all_rows_of_a_step_on_all_devices() -> None:
    """Two micro-batches and two equal devices; 16 patches, CLS and all prompt rows but one stand for a picture."""
    attachment = Attachment(visual_prompts=DeepPrompts([0], 1, 3, WIDTH, 0.0), visual_rows_to_text="official")
    logged: list[tuple[str, float]] = []
    shape = SimpleNamespace(connected_patches=16, vision_rows_in_front=1)
    shaped = SimpleNamespace(shape=shape, attachment=attachment)
    module = SimpleNamespace(
        backbone=SimpleNamespace(rows_of_runs=partial(Backbone.rows_of_runs, shaped)),
        log=lambda name, value, **_: logged.append((name, float(value))),
    )
    strategy = SimpleNamespace(reduce=lambda tensor, reduce_op: 2 * tensor if reduce_op == "sum" else tensor)
    trainer = SimpleNamespace(global_step=0, strategy=strategy)
    callback = PaddingShare()
    callback.on_train_start(trainer, module)
    for step, lengths in ((0, (4, 9)), (1, (2, 2)), (2, (1, 8))):
        trainer.global_step = step
        callback.on_train_batch_end(trainer, module, {}, batch_of_lengths(*lengths), step)
    rows = 2 * (9 - 1 + 19) + 2 * (2 - 1 + 19)
    assert logged == [("train/padding", pytest.approx(5 / rows)), ("train/padding", pytest.approx(7 / 52))]
    assert attachment.rows_beside_patches() == 3
    assert Attachment(visual_prompts=attachment.visual_prompts).rows_beside_patches() == 0
    assert Attachment(visual_rows_to_text="all").rows_beside_patches() == 0


def test_the_window_of_task_losses_survives_a_checkpoint() -> None:
    first, second = TaskLosses(3), TaskLosses(3)
    fit(MethodToy(), [first])
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    assert len(second.state_dict()["window"]) == 3
    with pytest.raises(BadInputError, match="steps"):
        TaskLosses(0)


def test_table_and_toggles_stand_in_the_runs_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        fit(MethodToy(), [ParameterTable(tmp_path, lambda: 990), AblationToggles(tmp_path)], folder=tmp_path)
    record = read_run_record(tmp_path)
    trainable = record["trainable"]
    assert record["toggles"] == {"method": "toy", "interaction": True, "visual_length": 2}
    assert (trainable["trained"], trainable["base"], trainable["percent"]) == (10, 990, 1.0)
    assert "prompts row 0" in caplog.text
    assert "1.0000" in caplog.text


class Answers(LightningModule):
    """Answers a question with the number of its name, the more surely the higher it is."""

    def predict_step(self, batch: Any, batch_idx: int) -> list[tuple[str, Answer]]:
        numbers = [int(name.rpartition("-")[2]) for name in batch.sample_ids]
        return [
            (name, Answer(f"ä {number}", margin=float(number)))
            for name, number in zip(batch.sample_ids, numbers, strict=True)
        ]


class Answered(LightningDataModule):
    """As much of a benchmark as a prediction file needs."""

    name, rules, classes, data_revision = "pope", ("pope_official", "yes_no_words"), [], "abc"
    number_of_all_questions, shared_with_tasks = 3, {}
    asked_with = ""
    template = SimpleNamespace(name="plain")

    def examples(self) -> dict[str, int | str]:
        return {}

    def questions(self) -> list[Question]:
        return [
            Question(f"sample-{number}", "scene", "What?\nNow?", "yes", Path("x"), f"{number}.jpg", "file:1")
            for number in (2, 0, 1)
        ]

    def predict_dataloader(self) -> Any:
        asked = [(f"sample-{number}", torch.zeros(WIDTH)) for number in (0, 1, 2, 0)]  # one comes twice
        return DataLoader(asked, batch_size=1, collate_fn=collate)


def test_predictions_are_joined_by_id_in_the_benchmarks_order(tmp_path: Path) -> None:
    data, path = Answered(), prediction_file(tmp_path, "pope")
    header = prediction_header(data, "sha", {"visual_length": 10}, {"method": "greedy", "dtype": "float32"})
    partial = PartialPredictions(path, header)
    trainer = Trainer(
        accelerator="cpu",
        callbacks=[PredictionWriter(partial, data.questions())],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.predict(Answers(), datamodule=data, return_predictions=False)
    assert not path.exists()
    assert list(partial.answered()) == ["sample-0", "sample-1", "sample-2"]
    partial.finish([question.id for question in data.questions()])
    file = read_predictions(path)
    assert [row["id"] for row in file.predictions] == ["sample-2", "sample-0", "sample-1"]
    assert [row["answer"] for row in file.predictions] == ["ä 2", "ä 0", "ä 1"]
    assert [row.get("near_tie") for row in file.predictions] == [None, True, None]
    assert file.predictions[0]["question"] == "What?\nNow?"
    assert file.header == {
        "format": 1,
        "benchmark": "pope",
        "template": "plain",
        "decoding": {"method": "greedy", "dtype": "float32"},
        "data_revision": "abc",
        "questions": 3,
        "adapter": "sha",
        "default_rule": "pope_official",
        "toggles": {"visual_length": 10},
        "classes": [],
    }
