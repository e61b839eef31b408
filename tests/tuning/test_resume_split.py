"""A run goes on with another split of the step, and every step has its own samples, rate, row and update."""

import csv
import itertools
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks.gradient_check import GradientCheck
from callbacks.prompt_statistics import PromptStatistics
from callbacks.same_on_all_ranks import SameOnAllRanks
from experiments.configuration.cli import parse_experiment
from experiments.runs.tuning import fit
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.checkpoint import latest_checkpoint, read_checkpoint
from lightning_m2pt.tuning.loop_counters import recount_micro_batches
from tests.support.runs.resumable_toy import STEPS_PER_EPOCH, InterruptAt, Interrupted, LoggingToy, Toy
from tests.support.small_experiment import fitted, small_words
from tests.tuning.test_training import EXACT, StopAtStep, adapter, largest_difference

SPLITS = (1, 2, 4, 8)
STEPS = 3 * STEPS_PER_EPOCH
AT_THE_END_OF_EPOCHS = {"check_val_every_n_epoch": 1}


def numbers(toy: Toy) -> list[dict[str, Any]]:
    """Returns the rows of the table as numbers; an empty cell is NaN."""
    rows = csv.DictReader(toy.table.open())
    return [{name: float(cell or "nan") for name, cell in row.items()} for row in rows]


def assert_same_numbers(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert len(one) == len(other)
    for row, same in zip(one, other, strict=True):
        assert row == pytest.approx(same, rel=1e-9, nan_ok=True), row["step"]


def counters(toy: Toy) -> tuple[Any, ...]:
    """Returns the counters of the newest checkpoint that do not depend on the split."""
    newest = latest_checkpoint(toy.folder / "checkpoints")
    assert newest is not None
    state = read_checkpoint(newest)
    loops = state["loops"]["fit_loop"]
    progress = {
        key: loops[key] for key in loops if key.endswith(("optim_progress", "scheduler_progress", "epoch_progress"))
    }
    return state["global_step"], state["epoch"], progress, loops["state_dict"]["combined_loader"]


def assert_same_run(cut: Toy, trained: list[LoggingToy], whole: Toy, uninterrupted: LoggingToy) -> None:
    """Compares samples of every step, losses, rates, validations, counters and tensors of two trainings."""
    seen = {step: ids for toy in trained for step, ids in toy.seen.items()}
    assert {step: sorted(ids) for step, ids in seen.items()} == {
        step: sorted(ids) for step, ids in uninterrupted.seen.items()
    }
    assert_same_numbers(numbers(cut), numbers(whole))
    assert counters(cut) == counters(whole)
    torch.testing.assert_close(trained[-1].method.prompts, uninterrupted.method.prompts, rtol=1e-10, atol=1e-12)


def train_in_pieces(toy: Toy, splits: tuple[int, ...], cuts: list[InterruptAt]) -> list[LoggingToy]:
    """Trains until each interruption with one of the splits after another, and then to the end."""
    trained = []
    for split, cut in itertools.zip_longest(itertools.islice(itertools.cycle(splits), len(cuts) + 1), cuts):
        if cut is None:
            return [*trained, toy.train(split)]
        with pytest.raises(Interrupted):
            toy.train(split, cut)
        trained.append(cut.module)
    return trained


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(SPLITS, 2)))
def test_every_change_of_the_split_at_every_step_changes_nothing(tmp_path: Path, one: int, other: int) -> None:
    """Back and forth: each piece ends at another step, ends of epochs and both sides of a validation among them.

    Every two splits are taken once for a number of steps, and once for a number of epochs and grouped by length.
    """
    duration = {"steps": STEPS} if one < other else {"epochs": 3, "grouped": True}
    settings = duration | {"validation": AT_THE_END_OF_EPOCHS}
    whole, cut = Toy(tmp_path / "whole", **settings), Toy(tmp_path / "cut", **settings)
    uninterrupted = whole.train(one)
    cuts = [
        InterruptAt(1),
        InterruptAt(STEPS_PER_EPOCH, "on_validation_batch_start"),
        InterruptAt(STEPS_PER_EPOCH + 1),
        InterruptAt(2 * STEPS_PER_EPOCH, "on_train_epoch_start"),
        InterruptAt(2 * STEPS_PER_EPOCH + 1, "on_after_backward"),
    ]
    trained = train_in_pieces(cut, (one, other), cuts)
    assert_same_run(cut, trained, whole, uninterrupted)


@pytest.mark.parametrize("stop", range(1, STEPS))
def test_validations_counted_over_epochs_come_where_they_would_have_come(tmp_path: Path, stop: int) -> None:
    """``val_check_interval`` counts micro-batches, over all epochs, so the total is counted anew, too."""
    whole, cut = (
        Toy(tmp_path / name, STEPS, validation={"check_val_every_n_epoch": None, "val_check_interval": interval})
        for name, interval in (("whole", 6), ("cut", 12))
    )
    uninterrupted = whole.train(2)
    assert [int(row["step"]) for row in numbers(whole) if row["val/loss"] > 0] == [3, 6]
    with pytest.raises(Interrupted):
        cut.train(4, InterruptAt(stop))
    cut.validation["val_check_interval"] = 6
    assert_same_run(cut, [uninterrupted, cut.train(2)], whole, uninterrupted)


@pytest.mark.parametrize("stop", [1, 2])
def test_an_epoch_that_is_cut_short_ends_where_it_would_have_ended(tmp_path: Path, stop: int) -> None:
    """Of the two steps of an epoch only the first is made, and its loader would have more."""
    settings = {"limit_train_batches": 2, "limit_val_batches": 0}
    whole, cut = (Toy(tmp_path / name, epochs=3, validation=settings) for name in ("whole", "cut"))
    uninterrupted = whole.train(2)
    assert sorted(uninterrupted.seen) == [1, 2, 3]
    assert_same_run(cut, train_in_pieces(cut, (2,), [InterruptAt(stop, "on_train_epoch_end")]), whole, uninterrupted)


def checkpoint(steps: int, micro_batches: int, of_epoch: int) -> dict[str, Any]:
    """Returns the counters as Lightning has them in ``on_train_batch_end``, and as older versions saved them."""

    def progress(done: int) -> dict[str, int]:
        return {"ready": done, "started": done, "processed": done, "completed": done - 1}

    batches = {"total": progress(micro_batches), "current": progress(of_epoch), "is_last_batch": False}
    fit_loop = {"epoch_loop.batch_progress": batches, "epoch_loop.state_dict": {"_batches_that_stepped": steps - 1}}
    return {"global_step": steps, "loops": {"fit_loop": fit_loop}}


@pytest.mark.parametrize(("was", "becomes"), list(itertools.product(SPLITS, SPLITS)))
def test_micro_batches_are_counted_anew(was: int, becomes: int) -> None:
    state = checkpoint(5, 5 * was, 2 * was)
    recount_micro_batches(state, becomes)
    fit_loop = state["loops"]["fit_loop"]
    counted = fit_loop["epoch_loop.batch_progress"]
    assert counted["total"] == dict.fromkeys(("ready", "started", "processed", "completed"), 5 * becomes)
    assert counted["current"] == dict.fromkeys(("ready", "started", "processed", "completed"), 2 * becomes)
    assert fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] == 5


@pytest.mark.parametrize("counts", [(3, 7, 2), (3, 6, 3), (3, 2, 2)], ids=["total", "epoch", "too few"])
def test_counters_of_mixed_splits_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(BadInputError, match="another data") as refused:
        recount_micro_batches(checkpoint(*counts), 2)
    assert len(str(refused.value).splitlines()) == 3


def test_a_loader_elsewhere_than_the_loops_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an older version resumed with another split, and the numbers happen to divide."""
    toy = Toy(tmp_path, steps=STEPS)
    with pytest.raises(Interrupted):
        toy.train(1, InterruptAt(3))

    def mixed(folder: Path) -> dict[str, Any]:
        state = read_checkpoint(folder)
        state["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["samples"] += 8
        return state

    monkeypatch.setattr("lightning_m2pt.storage.checkpoint_io.read_checkpoint", mixed)
    with pytest.raises(BadInputError, match="the samples at micro-batch 2 of epoch 1"):
        toy.train(1)


def test_the_product_goes_on_with_another_split(tmp_path: Path) -> None:
    """Two steps an epoch, stopped inside the second; answers differ in length, and every token counts alike."""
    words = [*small_words(tmp_path, steps=5), *EXACT, "--data.group_by_length", "1"]
    uninterrupted = parse_experiment([*words, "--data.micro_batch_size", "8"])
    uninterrupted.trainer_config["callbacks"] = [PromptStatistics(every_n_steps=3)]
    whole = fit(uninterrupted, folder=tmp_path / "whole")
    stopped = parse_experiment([*words, "--data.micro_batch_size", "2"])
    stopped.trainer_config["callbacks"] = [StopAtStep(3, signal.SIGTERM)]
    with pytest.raises(SystemExit):
        fit(stopped, folder=tmp_path / "cut")
    _, cut = fitted([*words, "--data.micro_batch_size", "4"], run=tmp_path / "cut")
    assert largest_difference(adapter(whole), adapter(cut)) < 1e-6
    tables = [list(csv.DictReader((run / "metrics.csv").open())) for run in (whole, cut)]
    for row, same in zip(*tables, strict=True):
        assert (row["step"], row["epoch"]) == (same["step"], same["epoch"])
        assert float(row["train/loss"]) == pytest.approx(float(same["train/loss"]), abs=1e-6)
    assert [bool(row["train/row_norm/visual_prompts"]) for row in tables[0]] == [False, False, True, False, False]
    kinds = [type(callback) for callback in uninterrupted.model.trainer.callbacks]
    assert kinds.index(SameOnAllRanks) < kinds.index(GradientCheck)  # which then decides alike on all ranks
