"""Checkpoints are complete or absent, and the newest verified one wins."""

import json
import logging
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.storage import checkpoint
from lightning_m2pt.storage.checkpoint import damage, latest_checkpoint, read_checkpoint, write_checkpoint
from lightning_m2pt.storage.checkpoint_io import VerifiedCheckpointIO
from lightning_m2pt.system import atomic_files

FILES = [checkpoint.TENSOR_FILE, checkpoint.TEXT_FILE, checkpoint.MANIFEST_FILE]


def state_at(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.full((64,), float(step))}


def written(folder: Path, *steps: int) -> list[Path]:
    return [write_checkpoint(folder, step, state_at(step)) for step in steps]


def test_a_checkpoint_comes_back_and_its_folder_holds_three_files(tmp_path: Path) -> None:
    (folder,) = written(tmp_path / "run" / "checkpoints", 500)
    assert folder.name == "step=000500"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    state = read_checkpoint(folder)
    assert state["step"] == 500
    assert torch.equal(state["weights"], state_at(500)["weights"])
    assert json.loads((folder / checkpoint.MANIFEST_FILE).read_text())["step"] == 500


def test_two_are_kept_and_nothing_else_is_left(tmp_path: Path) -> None:
    written(tmp_path, 1, 2, 3, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step=000003", "step=000004"]


def test_order_is_by_step_whatever_the_clock_says(tmp_path: Path) -> None:
    old, new = written(tmp_path, 999_999, 1_000_000)
    os.utime(new, (0, 0))
    assert latest_checkpoint(tmp_path) == new
    assert old.exists()


def test_a_step_written_again_is_replaced(tmp_path: Path) -> None:
    written(tmp_path, 7)
    write_checkpoint(tmp_path, 7, {"step": 7, "again": True})
    assert read_checkpoint(tmp_path / "step=000007") == {"step": 7, "again": True}
    assert len(list(tmp_path.iterdir())) == 1


def test_no_folder_and_an_empty_one_have_no_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "missing") is None
    assert latest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("percent", [0, 1, 50, 99])
def test_a_truncated_newest_is_put_aside_and_the_older_taken(
    tmp_path: Path, name: str, percent: int, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = written(tmp_path, 1, 2)
    content = (new / name).read_bytes()
    (new / name).write_bytes(content[: len(content) * percent // 100])
    with caplog.at_level(logging.WARNING):
        assert latest_checkpoint(tmp_path) == old
    assert len(caplog.records) == 1
    assert "step=000002 is damaged" in caplog.records[0].getMessage()
    assert (tmp_path / "damaged-step=000002" / name).exists()


def flip_a_byte(folder: Path) -> None:
    path = folder / checkpoint.TENSOR_FILE
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def not_utf8(folder: Path) -> None:
    (folder / checkpoint.MANIFEST_FILE).write_bytes(b"\xff\xfe{")


def no_manifest(folder: Path) -> None:
    (folder / checkpoint.MANIFEST_FILE).unlink()


def a_newer_format(folder: Path) -> None:
    path = folder / checkpoint.MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))


def the_name_of_another_step(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("step=000001"), folder)


def a_file_in_its_place(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a folder")


def a_dangling_link(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(folder.parent / "nowhere")


@pytest.mark.parametrize(
    "harm",
    [
        flip_a_byte,
        not_utf8,
        no_manifest,
        a_newer_format,
        the_name_of_another_step,
        a_file_in_its_place,
        a_dangling_link,
    ],
)
def test_other_damage_is_put_aside_too_and_refused_when_read(tmp_path: Path, harm: Any) -> None:
    old, new = written(tmp_path, 1, 2)
    harm(new)
    with pytest.raises(BadInputError, match="damaged checkpoint"):
        read_checkpoint(new)
    assert latest_checkpoint(tmp_path) == old
    assert os.path.lexists(tmp_path / "damaged-step=000002")


def test_if_all_are_damaged_each_is_named_and_nothing_is_touched(tmp_path: Path) -> None:
    for folder in written(tmp_path, 1, 2):
        flip_a_byte(folder)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInputError, match=r"step=000002.*step=000001"):
        latest_checkpoint(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_another_name_is_no_step(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="step=000500"):
        checkpoint.step_of(tmp_path / "last.ckpt")


@pytest.mark.parametrize("failing_write", [1, 2, 3])
def test_a_full_disk_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_write: int
) -> None:
    (previous,) = written(tmp_path, 1)
    synced = 0

    def sync_until_full(_descriptor: int) -> None:
        nonlocal synced
        synced += 1
        if synced == 2 * failing_write - 1:  # every file is synced, and then its folder
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_files.os, "fsync", sync_until_full)
    with pytest.raises(EnvironmentFailure, match=r"No space left on device\n.*free bytes") as caught:
        written(tmp_path, 2)
    assert caught.value.exit_code == 3
    assert latest_checkpoint(tmp_path) == previous
    assert [path.name for path in tmp_path.iterdir()] == [previous.name]


def test_a_file_size_limit_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    (previous,) = written(tmp_path, 1)
    code = (
        "import resource, signal, sys, torch; from pathlib import Path\n"
        "from lightning_m2pt.storage.checkpoint import write_checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (4096, {resource.RLIM_INFINITY}))\n"
        "write_checkpoint(Path(sys.argv[1]), 2, {'weights': torch.zeros(4096)})\n"
    )
    result = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert "File too large" in result.stderr
    assert str(tmp_path) in result.stderr
    assert latest_checkpoint(tmp_path) == previous


@pytest.mark.parametrize("place", ["checkpoints", "."])
def test_a_file_in_the_folders_place_is_an_environment_failure(tmp_path: Path, place: str) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    with pytest.raises(EnvironmentFailure, match="blocked"):
        write_checkpoint(blocked / place, 1, state_at(1))


@pytest.mark.parametrize("stage", ["before the rename", "while old ones are removed"])
def test_a_kill_leaves_a_complete_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    written(tmp_path, 1, 2)

    def killed(*_: Any, **__: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", lambda *_, **__: None)  # a kill cleans nothing up
        patch.setattr(checkpoint, "damage" if stage == "before the rename" else "_remove_old", killed)
        with pytest.raises(SystemExit):
            written(tmp_path, 3)
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == ("step=000002" if stage == "before the rename" else "step=000003")
    written(tmp_path, 4)
    assert not list(tmp_path.glob("writing-*"))
    assert damage(tmp_path / "step=000004") is None


def test_names_with_spaces_and_other_alphabets_work(tmp_path: Path) -> None:
    folder = tmp_path / ("läuft 試験 " + "x" * 180) / "checkpoints"
    written(folder, 1)
    assert latest_checkpoint(folder) is not None


def test_what_a_callback_keeps_and_no_checkpoint_can_hold_is_named(tmp_path: Path) -> None:
    state = {"callbacks": {"Mine": {"seen": {1, 2}}}}
    with pytest.raises(BadInputError, match=r"builtins\.set \(at state\.callbacks\.Mine\.seen\)") as refused:
        VerifiedCheckpointIO().save_checkpoint(state, tmp_path / "step=000001")
    assert refused.value.expected.startswith("make it a number")
    assert list(tmp_path.iterdir()) == []


def test_a_rank_that_finds_a_damaged_folder_put_aside_by_another_goes_on(tmp_path):
    from lightning_m2pt.storage import checkpoint

    aside = tmp_path / "damaged-step=000002"
    aside.mkdir()
    checkpoint._put_aside(tmp_path / "step=000002", "it is cut off", tmp_path / "step=000001")
    assert list(tmp_path.iterdir()) == [aside]
