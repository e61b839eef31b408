"""A lock's file that somebody has cleaned up never lets two processes write in one place."""

import json
import os
from pathlib import Path

import pytest
from lightning.pytorch import Callback, Trainer

from experiments.configuration.cli import parse_experiment
from experiments.runs.lock import alone_in, holder_of
from experiments.runs.tuning import fit
from lightning_m2pt.errors import EnvironmentFailure
from lightning_m2pt.system.file_lock import lock_file, locked, remove_if_free
from tests.runs.test_lock import holder, let_go
from tests.support.small_experiment import small_words


class CleanedUp(Callback):
    """Removes the lock's file inside the second step, and may let another process in."""

    def __init__(self, run: Path, is_taken: bool) -> None:
        self.run, self.is_taken = run, is_taken
        self.other = None
        self.files: dict[Path, bytes] = {}

    def on_after_backward(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == 1:
            lock_file(self.run).unlink()
            self.other = holder(self.run) if self.is_taken else None
            self.files = contents(self.run)


def contents(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.parent.name != "tb"}


def test_a_training_whose_folder_was_taken_over_stops_and_writes_nothing_more(tmp_path):
    run = tmp_path / "run"
    experiment = parse_experiment([*small_words(tmp_path, steps=4), "--save_every_n_steps", "1"])
    experiment.trainer_config["callbacks"] = [cleaned := CleanedUp(run, is_taken=True)]
    with pytest.raises(EnvironmentFailure, match="another process has locked it since") as stopped:
        fit(experiment, folder=run)
    assert len(stopped.value.message().splitlines()) == 3
    assert contents(run) == cleaned.files
    assert cleaned.other is not None
    assert holder_of(run).process == cleaned.other.pid  # its lock is left alone
    let_go(cleaned.other)


def test_a_training_whose_lock_was_only_removed_takes_it_again(tmp_path):
    run = tmp_path / "run"
    experiment = parse_experiment(small_words(tmp_path, steps=3))
    experiment.trainer_config["callbacks"] = [CleanedUp(run, is_taken=False)]
    fit(experiment, folder=run)
    assert json.loads((run / "run.json").read_text())["completed"]["optimizer_steps"] == 3
    assert not lock_file(run).exists()


def test_a_lock_that_is_taken_again_says_who_holds_it_and_holds(tmp_path):
    run = tmp_path / "run"
    with alone_in(run) as still_alone:
        lock_file(run).unlink()
        still_alone()
        assert holder_of(run).process == os.getpid()
        with pytest.raises(BlockingIOError), locked(run, on_wait=refuse):
            pass
        still_alone()


def refuse() -> None:
    raise BlockingIOError


def test_a_lock_of_somebody_else_is_not_removed_at_the_end(tmp_path):
    path = tmp_path / "vsr.jsonl"
    with locked(path, on_wait=lambda: None) as first:
        lock_file(path).unlink()
        with locked(path, on_wait=lambda: None):
            with pytest.raises(EnvironmentFailure, match="another process has locked it"):
                first.check()
            first.release()
            assert lock_file(path).exists()
            first.descriptor = os.open(tmp_path, os.O_RDONLY)  # for the release at the end of the block
    assert not lock_file(path).exists()


def test_what_a_kill_left_of_a_lock_is_removed_and_a_held_one_stays(tmp_path):
    path = tmp_path / "vsr.jsonl"
    remove_if_free(path)
    lock_file(path).touch()
    remove_if_free(path)
    assert not lock_file(path).exists()
    with locked(path, on_wait=lambda: None):
        remove_if_free(path)
        assert lock_file(path).exists()


def test_answers_of_a_set_that_another_process_answers_are_not_written(tmp_path, monkeypatch):
    from experiments.runs.evaluation import evaluate_frozen
    from lightning_m2pt.answering.partial_predictions import PartialPredictions
    from tests.runs.test_evaluation import frozen_experiment

    append, appended = PartialPredictions.append, []

    def append_and_lose_the_lock(self, lines, rank):
        append(self, lines, rank)
        appended.append(self.path)
        if len(appended) == 1:
            lock_file(self.path).unlink()
            others.append(holder(self.path))

    others = []
    monkeypatch.setattr(PartialPredictions, "append", append_and_lose_the_lock)
    with pytest.raises(EnvironmentFailure, match="another process has locked it"):
        evaluate_frozen(frozen_experiment(tmp_path))
    assert len(appended) == 1
    let_go(others[0])
