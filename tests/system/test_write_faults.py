"""Whatever the disk refuses, and wherever the process ends: what was written once can be read, old or new."""

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_m2pt.answering.partial_predictions import PartialPredictions
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.storage.checkpoint import latest_checkpoint, read_checkpoint, recover_checkpoints, write_checkpoint
from lightning_m2pt.system import atomic_files
from lightning_m2pt.system.atomic_files import cannot_write, draft_of, free_bytes, remove_dead_drafts, write_atomically
from tests.support.answers.prediction_files import row_of
from tests.support.runs.write_faults import Killed, disk_error, every_fault

FAULTS = [(disk_error(errno.ENOSPC), False), (disk_error(errno.EIO), True), (Killed, True)]
ALL_FAULTS = [
    *(
        (disk_error(number), lasting)
        for number in (errno.EACCES, errno.EROFS, errno.EDQUOT)
        for lasting in (False, True)
    ),
    *FAULTS,
]


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    numbers = itertools.count()

    def folder() -> Path:
        made = tmp_path / f"try-{next(numbers)}"
        made.mkdir()
        return made

    return folder


def state(step: int, mark: str) -> dict[str, Any]:
    return {"step": step, "mark": mark, "weights": torch.full((8,), float(step))}


@pytest.mark.parametrize("before", [(), (1,), (1, 2), (3,)], ids=["none", "one", "two", "the same step"])
def test_a_checkpoint_that_cannot_be_written_costs_no_other(fresh: Callable[[], Path], before: tuple[int, ...]) -> None:
    def prepared() -> Path:
        folder = fresh()
        for step in before:
            write_checkpoint(folder, step, state(step, "old"))
        return folder

    def write(folder: Path) -> None:
        write_checkpoint(folder, 3, state(3, "new"))

    for tried, folder, raised in every_fault(prepared, write, FAULTS):
        newest = latest_checkpoint(folder)
        found = read_checkpoint(newest)["mark"] if newest else None
        if raised is None:
            assert found == "new", tried
        else:
            assert isinstance(raised, EnvironmentFailure | Killed), tried
            assert found in ("old", "new") if before else found in (None, "new"), tried
        write(folder)  # the same command goes on
        recover_checkpoints(folder)
        assert read_checkpoint(folder / "step=000003")["mark"] == "new"
        names = sorted(path.name for path in folder.iterdir())
        assert names == [f"step={step:06d}" for step in sorted({*before, 3})[-2:]], tried


def test_tidying_up_finishes_what_a_stop_cut_off(fresh: Callable[[], Path]) -> None:
    def prepared() -> Path:
        folder = fresh()
        for step in (1, 2):
            write_checkpoint(folder, step, state(step, "old"))
        return folder

    for tried, folder, _ in every_fault(
        prepared, lambda at: write_checkpoint(at, 3, state(3, "new")), [(Killed, True)]
    ):
        recover_checkpoints(folder)
        names = sorted(path.name for path in folder.iterdir())
        assert names in (["step=000001", "step=000002"], ["step=000002", "step=000003"]), tried


def test_a_file_is_old_or_new(fresh: Callable[[], Path]) -> None:
    def prepared() -> Path:
        folder = fresh()
        (folder / "run.json").write_bytes(b"old")
        return folder

    for tried, folder, raised in every_fault(prepared, lambda at: write_atomically(at / "run.json", b"new"), FAULTS):
        found = (folder / "run.json").read_bytes()
        assert found == b"new" if raised is None else found in (b"old", b"new"), tried
        assert raised is None or isinstance(raised, EnvironmentFailure | Killed), tried
        if isinstance(raised, EnvironmentFailure):
            assert raised.exit_code == 3
            assert len(raised.message().splitlines()) == 3
        write_atomically(folder / "run.json", b"newer")
        assert (folder / "run.json").read_bytes() == b"newer"


HEADER = {"format": 1, "benchmark": "vsr", "template": "plain", "data_revision": "a", "default_rule": "exact", "n": 2}
LINES = [row_of("vsr", f"q/{number}", "", "What?", "yes", "no", "a.jpg") for number in range(3)]


def test_answers_that_were_there_are_there(fresh: Callable[[], Path]) -> None:
    def prepared() -> Path:
        folder = fresh()
        PartialPredictions(folder / "vsr.jsonl", HEADER).append(LINES[:1], 0)
        return folder

    def write(folder: Path) -> None:
        partial = PartialPredictions(folder / "vsr.jsonl", HEADER)
        partial.append([line for line in LINES if line["id"] not in partial.answered()], 0)
        partial.finish([line["id"] for line in LINES])

    whole = prepared()
    write(whole)
    for tried, folder, raised in every_fault(prepared, write, FAULTS):
        partial = PartialPredictions(folder / "vsr.jsonl", HEADER)
        assert partial.path.exists() or LINES[0]["id"] in partial.answered(), tried
        if raised is not None:
            assert isinstance(raised, EnvironmentFailure | Killed | OSError), tried
            if not partial.path.exists() or partial.files():
                write(folder)
        assert (folder / "vsr.jsonl").read_bytes() == (whole / "vsr.jsonl").read_bytes(), tried
        assert not partial.files()


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "name another folder"), (errno.EIO, "look after the disk")],
    ids=["full", "read-only", "broken"],
)
def test_the_message_says_what_to_do(tmp_path: Path, number: int, hint: str) -> None:
    failure = cannot_write(tmp_path / "not" / "there" / "file", 12, OSError(number, "no"))
    assert failure.hint.startswith(hint)
    assert "12 free bytes (there are " in failure.expected


def test_a_disk_that_does_not_tell_its_room_is_reported_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_path: Path) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(atomic_files.shutil, "disk_usage", refused)
    assert free_bytes(tmp_path) is None
    failure = cannot_write(tmp_path / "file", 12, OSError(errno.EIO, "Input/output error"))
    assert failure.expected == "a writable folder with 12 free bytes"


def test_drafts_of_dead_processes_go_and_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic_files.platform, "node", lambda: "a.host-1")
    path, ours = tmp_path / "run.json", draft_of(tmp_path / "run.json")
    monkeypatch.setattr(atomic_files, "is_alive", lambda process: process != 7)
    kept = [
        ours,
        tmp_path / ".run.json.b_host-7.draft",  # another machine's
        tmp_path / ".other.json.a_host_1-7.draft",  # another file's
        tmp_path / ".run.json.7.draft",  # of a version that wrote no machine: perhaps another's
        tmp_path / ".run.json.draft",
    ]
    for draft in [*kept, tmp_path / ".run.json.a_host_1-7.draft"]:
        draft.write_bytes(b"half")
    remove_dead_drafts(tmp_path, "run.json")
    assert set(tmp_path.iterdir()) == set(kept)
    tomorrow = ours.stat().st_mtime + 25 * 3600
    monkeypatch.setattr(atomic_files.time, "time", lambda: tomorrow)
    write_atomically(path, b"new")
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "run.json",
        ".other.json.a_host_1-7.draft",
        ".run.json.draft",
    }
    remove_dead_drafts(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {"run.json", ".run.json.draft"}


def test_a_damaged_step_beside_its_replaced_one_is_not_taken_for_good(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 1, state(1, "old"))
    (folder / "state.json").write_text("{}")
    with pytest.raises(BadInputError, match="every checkpoint is damaged"):
        latest_checkpoint(tmp_path)
    write_checkpoint(tmp_path, 1, state(1, "new"))
    assert read_checkpoint(folder)["mark"] == "new"
