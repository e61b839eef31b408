"""Wherever the opening of a run's folder is cut off, the same command opens it again as if nothing had happened."""

import errno
import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.configuration.cli import Experiment, parse_experiment
from experiments.runs import opening as run_opening
from experiments.runs.folder import refuse_other_settings
from experiments.runs.opening import empty_run_folder, is_being_emptied, open_run_folder, refuse_foreign_folder
from experiments.runs.training import checkpoints_folder
from experiments.runs.tuning import fit
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.storage.checkpoint import latest_checkpoint, write_checkpoint
from lightning_m2pt.system.atomic_files import DRAFT
from tests.support.runs.write_faults import Killed, disk_error, every_fault
from tests.support.small_experiment import small_words


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return parse_experiment(small_words(tmp_path_factory.mktemp("data"), steps=1))


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    decided = {"seed": 0}
    monkeypatch.setattr(run_opening, "deciding", lambda _experiment: decided)  # it hashes weights every time
    monkeypatch.setattr(run_opening, "made_with", lambda _experiment: {"python": "3"})
    monkeypatch.setattr("experiments.runs.folder.deciding", lambda _experiment: decided)
    numbers = itertools.count()
    return lambda: tmp_path / f"try-{next(numbers)}" / "run"


def command(run: Path, experiment: Experiment, force: bool = False) -> None:
    """What ``tune`` does with a folder before it trains."""
    refuse_foreign_folder(run)
    force = force or is_being_emptied(run)
    if not force:
        refuse_other_settings(run, experiment)
    newest = None if force else latest_checkpoint(checkpoints_folder(run))
    if force:
        empty_run_folder(run)
    open_run_folder(run, experiment)
    write_checkpoint(checkpoints_folder(run), 1, {"goes_on_from": newest and newest.name})


def contents(run: Path) -> dict[str, bytes]:
    files = [path for path in run.rglob("*") if path.is_file() and DRAFT.fullmatch(path.name) is None]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


def without_starts(files: dict[str, bytes]) -> dict[str, bytes | dict]:
    record = json.loads(files["run.json"])
    record.pop("made_with", None)
    return {**files, "run.json": record}


FAULTS = [(Killed, True), (disk_error(errno.ENOSPC), False), (disk_error(errno.EIO), True)]


def test_a_new_folder_cut_off_anywhere_is_opened_by_the_same_command(experiment, fresh):
    whole = fresh()
    command(whole, experiment)
    starts = set()
    for tried, run, raised in every_fault(fresh, lambda run: command(run, experiment), FAULTS):
        assert raised is None or isinstance(raised, EnvironmentFailure | Killed | OSError), tried
        newest = latest_checkpoint(checkpoints_folder(run))
        command(run, experiment)
        if newest is None:
            assert without_starts(contents(run)) == without_starts(contents(whole)), tried
        starts.add(len(json.loads((run / "run.json").read_text())["made_with"]))
    assert starts == {1, 2}


def test_emptying_cut_off_anywhere_is_finished_by_the_next_command(experiment, fresh):
    def old_run() -> Path:
        run = fresh()
        open_run_folder(run, experiment)
        write_checkpoint(checkpoints_folder(run), 9, {"of": "before"})
        (run / "adapter").mkdir()
        for name in ("adapter/adapter_model.safetensors", "metrics.csv", "log.txt"):
            (run / name).write_text("of before")
        record = json.loads((run / "run.json").read_text()) | {"completed": {"optimizer_steps": 9}}
        (run / "run.json").write_text(json.dumps(record))
        return run

    whole = fresh()
    command(whole, experiment)
    before = contents(old_run())
    for tried, run, _ in every_fault(old_run, lambda run: command(run, experiment, force=True), FAULTS):
        if without_starts(left := contents(run)) == without_starts(before):
            continue  # nothing was removed: it is the run that it was
        assert b"completed" not in left["run.json"], tried
        if is_being_emptied(run) or latest_checkpoint(checkpoints_folder(run)) is None:
            command(run, experiment)  # without --force
            assert without_starts(contents(run)) == without_starts(contents(whole)), tried


def test_a_folder_that_an_earlier_version_had_begun_is_gone_on_with(experiment, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(json.dumps(experiment.config, indent=2) + "\n")
    (run / ".run.json.123.draft").write_text('{"deci')
    fit(experiment, folder=run)
    assert json.loads((run / "run.json").read_text())["completed"]["optimizer_steps"] == 1


@pytest.mark.parametrize(
    "content", ["model: mine\n", '{"model": 1}', "[" * 100_000, "\x00"], ids=["yaml", "other", "deep", "nul"]
)
def test_somebody_elses_configuration_is_left_alone(experiment, tmp_path, content):
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(BadInputError, match="no run's folder"):
        fit(experiment, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_force_follows_no_link_and_keeps_the_folder_itself(experiment, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "thesis.txt").write_text("years of work")
    run = tmp_path / "run"
    open_run_folder(run, experiment)
    (run / "link").symlink_to(tmp_path / "elsewhere")
    (run / "file_link").symlink_to(tmp_path / "elsewhere" / "thesis.txt")
    inode = run.stat().st_ino
    empty_run_folder(run)
    assert [path.name for path in run.iterdir()] == ["run.json"]
    assert run.stat().st_ino == inode
    assert (tmp_path / "elsewhere" / "thesis.txt").read_text() == "years of work"


def test_what_cannot_be_emptied_is_said_in_three_lines(experiment, tmp_path, monkeypatch):
    run = tmp_path / "run"
    open_run_folder(run, experiment)
    (run / "tb").mkdir()

    def refused(path: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    monkeypatch.setattr(shutil, "rmtree", refused)
    with pytest.raises(EnvironmentFailure, match="cannot be removed: Device or resource busy") as failed:
        empty_run_folder(run)
    assert len(failed.value.message().splitlines()) == 3
    assert is_being_emptied(run)


def test_a_folder_that_another_rank_opens_meanwhile_is_not_foreign(
    fresh: Callable[[], Path], experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, read = fresh(), run_opening.read_run_record
    run.mkdir(parents=True)

    def read_just_before_the_other_writes(folder: Path) -> dict[str, object]:
        monkeypatch.setattr(run_opening, "read_run_record", read)
        record = read(folder)
        open_run_folder(folder, experiment)
        return record

    monkeypatch.setattr(run_opening, "read_run_record", read_just_before_the_other_writes)
    refuse_foreign_folder(run)
