"""metrics.csv and TensorBoard hold every step once, however often a run was interrupted."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor
from torch import Tensor
from torch.utils.data import DataLoader

from callbacks.loggers import METRICS_FILE, StepMetrics, loggers_for
from callbacks.step_checkpoint import StepCheckpoint
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.storage.checkpoint import latest_checkpoint, step_of
from lightning_m2pt.storage.checkpoint_io import VerifiedCheckpointIO
from tests.callbacks.test_step_checkpoint import (
    INTERVAL,
    STEPS,
    STEPS_PER_EPOCH,
    At,
    Rows,
    Toy,
    collate,
    loader,
    raise_,
)


class LoggingToy(Toy):
    """Logs as the real module does: at the end of a step in training, once an epoch in validation."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0:
            self.log("train/loss", float(loss.detach()))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val/loss", (batch.pixel_values @ self.weight).square().mean())


def train(folder: Path, micro_batches: int = 1, extra: Callback | None = None) -> None:
    seed_everything(3, verbose=False)
    newest = latest_checkpoint(folder / "checkpoints")
    trainer = Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        accumulate_grad_batches=micro_batches,
        callbacks=[
            # It logs before the first micro-batch of a step, which completes the row of the step before.
            *([LearningRateMonitor("step")] if micro_batches > 1 else []),
            StepCheckpoint(folder / "checkpoints", INTERVAL),
            *([extra] if extra else []),
        ],
        plugins=[VerifiedCheckpointIO()],
        logger=loggers_for(folder, step_of(newest) if newest else 0),
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    validation = DataLoader(Rows(), batch_size=5, collate_fn=collate, generator=torch.Generator())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(LoggingToy(), loader(micro_batches), validation, ckpt_path=newest, weights_only=True)


def board_steps(folder: Path, tag: str) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # Files are read in order of their names, which begin with a second; real runs do not start in the same one.
    for number, file in enumerate(sorted((folder / "tb").glob("events*"), key=lambda file: file.stat().st_mtime_ns)):
        file.rename(file.with_name(f"events.out.tfevents.{number:010d}"))
    events = EventAccumulator(str(folder / "tb"))
    events.Reload()
    return [event.step for event in events.Scalars(tag)]


class KilledProcess(BaseException):
    """Stands for SIGKILL: nothing gets to clean up."""


def kill(folder: Path, micro_batches: int, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(StepCheckpoint, "on_exception", lambda *_: None)
        patch.setattr(StepMetrics, "finalize", lambda *_: None)
        with pytest.raises(KilledProcess):
            train(folder, micro_batches, At(step, raise_(KilledProcess()), inside_window=True))


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_killed_runs_end_with_the_table_of_an_uninterrupted_one(
    tmp_path: Path, micro_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "whole", micro_batches)
    for step in (2, INTERVAL, INTERVAL + 1, 2 * INTERVAL + 2, 4 * INTERVAL):
        kill(tmp_path / "cut", micro_batches, step, monkeypatch)
    train(tmp_path / "cut", micro_batches)
    table = (tmp_path / "whole" / METRICS_FILE).read_text()
    assert (tmp_path / "cut" / METRICS_FILE).read_text() == table
    assert [line.split(",")[0] for line in table.splitlines()] == ["step", *map(str, range(1, STEPS + 1))]
    assert board_steps(tmp_path / "whole", "train/loss") == list(range(STEPS))
    assert sorted(board_steps(tmp_path / "cut", "train/loss")) == list(range(STEPS))


def test_stopping_at_an_epochs_end_keeps_every_row(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="stop"):
        train(tmp_path, extra=At(STEPS_PER_EPOCH, raise_(OSError("stop"))))
    train(tmp_path)
    rows = (tmp_path / METRICS_FILE).read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [str(step) for step in range(1, STEPS + 1)]


@pytest.mark.parametrize("hook", ["on_validation_start", "on_train_epoch_end"])
def test_tensorboard_shows_a_validation_once_whether_it_was_cut_off_or_done(tmp_path: Path, hook: str) -> None:
    stop = At(-1, None)

    def interrupt(trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == STEPS_PER_EPOCH:
            raise OSError("stop")

    setattr(stop, hook, interrupt)
    train(tmp_path / "whole")
    with pytest.raises(OSError, match="stop"):
        train(tmp_path / "cut", extra=stop)
    train(tmp_path / "cut")
    for tag in ("val/loss", "epoch", "train/loss"):
        assert sorted(board_steps(tmp_path / "cut", tag)) == board_steps(tmp_path / "whole", tag), tag


def test_a_validation_of_which_tensorboard_has_a_part_is_completed(tmp_path: Path) -> None:
    before, after = (loggers_for(tmp_path, resumed_step)[1] for resumed_step in (0, 4))
    before.log_metrics({"train/loss": 1.0, "epoch": 0}, 3)
    before.log_metrics({"val/loss": 2.0}, 3)  # the kill came before the rest was written
    before.finalize("failed")
    after.log_metrics({"val/loss": 2.0, "val/answer_accuracy": 0.5, "epoch": 0}, 3)
    after.finalize("success")
    for tag in ("train/loss", "val/loss", "val/answer_accuracy", "epoch"):
        assert board_steps(tmp_path, tag) == [3], tag


def test_what_a_checkpoint_counts_as_done_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[list[int]] = []
    save = VerifiedCheckpointIO.save_checkpoint

    def look(self: VerifiedCheckpointIO, checkpoint: dict[str, Any], path: Path, *rest: Any, **named: Any) -> None:
        shown.append(board_steps(tmp_path, "train/loss")[: checkpoint["global_step"]])
        assert len(shown[-1]) == checkpoint["global_step"]
        save(self, checkpoint, path, *rest, **named)

    monkeypatch.setattr(VerifiedCheckpointIO, "save_checkpoint", look)
    train(tmp_path)
    assert len(shown) > 1


def table_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / METRICS_FILE


def logged(path: Path, resumed_step: int, *rows: tuple[int, dict[str, Any]]) -> StepMetrics:
    logger = StepMetrics(path, resumed_step)
    for step, metrics in rows:
        logger.log_metrics(metrics, step)
    logger.finalize("success")
    return logger


def test_metrics_of_one_step_share_a_row_and_columns_may_come_later(path: Path) -> None:
    logged(path, 0, (0, {"a": 0.1}), (0, {"b": 2}), (1, {"a": 1e-30}), (1, {"c": torch.tensor(0.5)}), (2, {"a": 3.0}))
    assert table_of(path) == ["step,a,b,c", "1,0.1,2,", "2,1e-30,,0.5", "3,3.0,,"]


def test_a_metric_after_the_row_was_saved_amends_it(path: Path) -> None:
    logger = logged(path, 0, (0, {"a": 1.0}), (1, {"a": 2.0}))
    logger.log_metrics({"val": 5.0}, 1)
    assert table_of(path) == ["step,a,val", "1,1.0,", "2,2.0,5.0"]


def test_a_resume_drops_later_rows_and_a_torn_one(path: Path) -> None:
    logged(path, 0, *((step, {"a": float(step)}) for step in range(4)))
    with path.open("a") as file:
        file.write("5,4")
    logged(path, 2, (1, {"val": 7.0}), (2, {"a": 2.5}))
    assert table_of(path) == ["step,a,val", "1,0.0,", "2,1.0,7.0", "3,2.5,"]


def test_a_new_run_in_an_old_folder_starts_a_new_table(path: Path) -> None:
    logged(path, 0, (0, {"a": 1.0}), (1, {"old": 1.0}))
    logged(path, 0, (0, {"a": 2.0}))
    assert table_of(path) == ["step,a", "1,2.0"]


def test_nothing_logged_leaves_no_file(path: Path) -> None:
    logged(path, 0)
    assert not path.exists()
