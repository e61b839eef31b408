"""Files are hashed once, and again as soon as anything tells that they changed."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system import file_hashes
from lightning_m2pt.system.file_hashes import cache_folder, has_changed_unseen, record_path, sha256_of_file


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Keeps every file's hash in a cache of the test's own, and lists what is read."""
    read: list[Path] = []
    hashed = file_hashes.read_and_hash

    def counted(path: Path) -> str:
        read.append(path)
        return hashed(path)

    monkeypatch.setattr(file_hashes, "read_and_hash", counted)
    monkeypatch.setattr(file_hashes, "KEPT_FROM_BYTES", 0)
    monkeypatch.setattr(file_hashes, "SETTLED_SECONDS", -1.0)
    monkeypatch.setattr(file_hashes, "_known", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return read


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Returns what makes this process a new one."""
    return lambda: monkeypatch.setattr(file_hashes, "_known", {})


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"as they came")
    return path


def test_a_file_is_read_once_and_its_hash_outlives_the_process(
    readings: list[Path], forget: Callable[[], None], weights: Path
) -> None:
    expected = hashlib.sha256(b"as they came").hexdigest()
    assert [sha256_of_file(weights) for _ in range(4)] == [expected] * 4
    forget()
    assert sha256_of_file(weights) == expected
    assert len(readings) == 1


def test_a_file_that_changed_under_its_size_and_mtime_is_read_again(
    readings: list[Path], forget: Callable[[], None], weights: Path
) -> None:
    before, times = sha256_of_file(weights), weights.stat()
    weights.write_bytes(b"AS they came")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert weights.stat().st_mtime_ns == times.st_mtime_ns
    assert weights.stat().st_ctime_ns != times.st_ctime_ns
    forget()
    assert sha256_of_file(weights) != before
    assert len(readings) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda record, _: record.write_text("{"),
        lambda record, _: record.write_bytes(b"\xff\xfe"),
        lambda record, _: record.write_text("[" * 100_000),
        lambda record, known: record.write_text(json.dumps({**known, "sha256": "g" * 64})),
        lambda record, known: record.write_text(json.dumps({**known, "sha256": 7})),
        lambda record, known: record.write_text(json.dumps({**known, "path": "/elsewhere"})),
        lambda record, known: record.write_text(json.dumps([known])),
    ],
    ids=["cut", "no text", "deep", "no hash", "a number", "of another file", "a list"],
)
def test_a_damaged_record_is_overlooked(
    readings: list[Path], forget: Callable[[], None], weights: Path, damage: Callable[[Path, dict[str, object]], None]
) -> None:
    expected, record = sha256_of_file(weights), record_path(weights.resolve())
    damage(record, json.loads(record.read_text()))
    forget()
    assert sha256_of_file(weights) == expected
    assert len(readings) == 2


def test_a_reading_on_request_tells_what_no_time_tells(
    readings: list[Path], forget: Callable[[], None], weights: Path
) -> None:
    true, record = sha256_of_file(weights), record_path(weights.resolve())
    assert not has_changed_unseen(weights)
    record.write_text(json.dumps({**json.loads(record.read_text()), "sha256": "0" * 64}))
    forget()
    assert sha256_of_file(weights) == "0" * 64  # what a rotten disk looks like: the hash was of other content
    assert has_changed_unseen(weights)
    assert sha256_of_file(weights) == true
    forget()
    assert sha256_of_file(weights) == true


def test_nothing_is_kept_of_small_files_nor_of_those_that_just_changed(
    readings: list[Path], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_hashes, "KEPT_FROM_BYTES", 1000)
    sha256_of_file(weights)
    monkeypatch.setattr(file_hashes, "KEPT_FROM_BYTES", 0)
    monkeypatch.setattr(file_hashes, "SETTLED_SECONDS", 1e6)
    sha256_of_file(weights)
    assert not cache_folder().exists()
    assert len(readings) == 1


def test_a_cache_that_cannot_be_written_costs_a_reading(
    readings: list[Path], forget: Callable[[], None], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(weights))
    for _ in range(2):
        sha256_of_file(weights)
        forget()
    assert len(readings) == 2


def test_a_missing_file_is_named(readings: list[Path], tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"gone\.safetensors: cannot be read"):
        sha256_of_file(tmp_path / "gone.safetensors")
