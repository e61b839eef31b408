"""A run killed at any moment ends with the ``metrics.csv`` of an uninterrupted one, byte by byte."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint

from tests.support.runs.resumable_toy import SAVED_EVERY, STEPS_PER_EPOCH, InterruptAt, Interrupted, Toy

HOOKS = [name for name in dir(Callback) if name.startswith("on_")]
AT_THE_END_OF_EPOCHS = {"check_val_every_n_epoch": 1}
EVERY_FOUR_MICRO_BATCHES = {"check_val_every_n_epoch": None, "val_check_interval": 4}
EVERY_SIX_MICRO_BATCHES = {"check_val_every_n_epoch": None, "val_check_interval": 6}
INSIDE_OF_STEPS = {"val_check_interval": 3}
TRAININGS = {
    "validation at the end of epochs": {"steps": 5, "validation": AT_THE_END_OF_EPOCHS},
    "the last step validates": {"steps": 4, "validation": EVERY_FOUR_MICRO_BATCHES},
    "the last step is no multiple": {"steps": 5, "validation": EVERY_SIX_MICRO_BATCHES},
    "only the last step validates": {"epochs": 2, "validation": {"check_val_every_n_epoch": 3}},
    "validation in between, whole epochs": {"epochs": 2, "validation": {"val_check_interval": 2}},
    "validation inside of steps": {"epochs": 2, "validation": INSIDE_OF_STEPS},
    "no validation": {"epochs": 2},
}


def folder_copier(toy: Toy, copies: Path) -> list[Callback]:
    """Returns callbacks that keep what a SIGKILL in any hook would leave of the folder, each state once."""
    seen: set[tuple[bytes, tuple[str, ...]]] = set()

    def keep(*_: Any) -> None:
        table = toy.table.read_bytes() if toy.table.exists() else b""
        checkpoints = tuple(sorted(path.name for path in (toy.folder / "checkpoints").glob("*")))
        if toy.folder.exists() and (table, checkpoints) not in seen:
            seen.add((table, checkpoints))
            shutil.copytree(toy.folder, copies / str(len(seen)))

    first, last = Callback(), Checkpoint()  # the Trainer puts callbacks that write checkpoints behind all others
    for copier in (first, last):
        for hook in HOOKS:
            setattr(copier, hook, keep)
    return [first, last]


@pytest.mark.parametrize("name", TRAININGS)
def test_a_kill_at_every_hook_leaves_the_table_of_an_uninterrupted_run(tmp_path: Path, name: str) -> None:
    settings = TRAININGS[name] | {"dropout": True}
    whole = Toy(tmp_path / "whole", **settings)
    whole.train(2, *folder_copier(whole, tmp_path / "copies"))
    table = whole.table.read_text()
    copies = sorted((tmp_path / "copies").iterdir(), key=lambda copy: int(copy.name))
    assert len(copies) > len(table.splitlines())  # more than one state a step
    for copy in copies:
        resumed = Toy(copy, **settings)
        resumed.train(2)
        assert resumed.table.read_text() == table, copy.name


def rows_of(toy: Toy) -> list[dict[str, str]]:
    return list(csv.DictReader(toy.table.open()))


def test_every_value_stands_in_its_own_row_and_nowhere_else(tmp_path: Path) -> None:
    toy = Toy(tmp_path, epochs=4, validation={"check_val_every_n_epoch": 2})
    trained = toy.train(4)
    rows = rows_of(toy)
    steps = range(1, 4 * STEPS_PER_EPOCH + 1)
    assert [int(row["step"]) for row in rows] == list(steps)
    assert [float(row["train/loss"]) for row in rows] == pytest.approx([trained.losses[step] for step in steps])
    assert [int(row["epoch"]) for row in rows] == [(step - 1) // STEPS_PER_EPOCH for step in steps]
    assert [float(row["lr-AdamW"]) for row in rows] == pytest.approx([0.1 / step for step in steps])
    logged = {name: [step for step, row in zip(steps, rows, strict=True) if row[name]] for name in rows[0]}
    assert logged["val/loss"] == [2 * STEPS_PER_EPOCH, 4 * STEPS_PER_EPOCH]
    assert logged["score/toy"] == [3, 6]
    assert logged["train/gradient_norm"] == list(steps)
    for name in ("train/row_norm/visual_prompts", "train/gradient_row_norm/visual_prompts", "train/loss_of_task/0"):
        assert logged[name] == [2, 4, 6, 8]


class InTheFirstHalf(Callback):
    """Logs in the first step of an epoch and the first micro-batches of a step."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx < 2:
            pl_module.log("mean", float(batch_idx), on_step=False, on_epoch=True, batch_size=1)
        if batch_idx % 2 == 0:
            pl_module.log("first", float(batch_idx))


def test_means_over_an_epoch_and_values_of_early_micro_batches_are_kept(tmp_path: Path) -> None:
    toy = Toy(tmp_path, epochs=2)
    toy.train(2, InTheFirstHalf())
    assert [row["mean"] for row in rows_of(toy)] == ["", "0.5", "", "0.5"]
    assert [row["first"] for row in rows_of(toy)] == ["0.0", "2.0", "0.0", "2.0"]


@pytest.mark.parametrize("hook", ["on_validation_start", "on_validation_batch_end", "on_validation_end"])
@pytest.mark.parametrize("step", [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH])
def test_an_interrupted_validation_is_made_after_all(tmp_path: Path, hook: str, step: int) -> None:
    """The second one follows the last step, after which no training goes on."""
    settings = {"steps": 2 * STEPS_PER_EPOCH, "validation": AT_THE_END_OF_EPOCHS}
    whole, cut = Toy(tmp_path / "whole", **settings), Toy(tmp_path / "cut", **settings)
    whole.train(2)
    with pytest.raises(Interrupted):
        cut.train(2, InterruptAt(step, hook))
    cut.train(2)
    assert cut.table.read_text() == whole.table.read_text()


def test_lost_rows_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    toy = Toy(tmp_path, steps=SAVED_EVERY + 2)
    with pytest.raises(Interrupted):
        toy.train(1, InterruptAt(SAVED_EVERY + 1))
    toy.table.write_text("".join(toy.table.read_text().splitlines(keepends=True)[:-1]) + "\x00\xff,1\n")
    toy.train(1)
    assert f"lacks 1 of the {SAVED_EVERY + 1} steps" in caplog.text
