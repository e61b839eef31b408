"""The SHA-256 of files, read once: a base of 13 GB is not read again at every start.

What was found is kept in memory, and for large files in the user's cache folder (``XDG_CACHE_HOME/m2pt``, else
``~/.cache/m2pt``), beside the file's path, size, times and inode: a file that differs in one of them is read again.
The time of the last change of the inode (``ctime``) is among them, which no copying tool can set. Not kept beside the
files: a folder from elsewhere would bring hashes along, and a checkout would not stay clean. Of processes that start
together one reads a large file, and the others wait for what it keeps.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import say
from lightning_m2pt.system.file_lock import locked

KEPT_FROM_BYTES = 64 * 2**20
"""Smaller files are read in less time than it takes to look anything up."""
SETTLED_SECONDS = 2.0
"""A file that changed later than this may change again within the resolution of its time."""

Stamp: TypeAlias = tuple[int, int, int, int]
"""Size, mtime and ctime in nanoseconds, inode."""

_known: dict[tuple[Path, Stamp], str] = {}


def sha256_of_file(path: Path) -> str:
    """Returns a file's SHA-256; reads it unless it was read before and looks as it did then.

    Raises:
        BadInputError: If it cannot be read.
    """
    place, stamp = path.resolve(), stamp_of(path)
    known = _known.get((place, stamp)) or read_kept(place, stamp)
    if known is None:
        with one_reader(place, stamp):
            known = read_kept(place, stamp) or hashed_and_kept(place, stamp)
    if is_settled(stamp):
        _known[place, stamp] = known
    return known


@contextlib.contextmanager
def one_reader(path: Path, stamp: Stamp) -> Iterator[None]:
    """Lets one process at a time read a large file: the others find what it has kept. Where nothing locks, all read."""
    with contextlib.ExitStack() as held:
        if stamp[0] >= KEPT_FROM_BYTES:
            with contextlib.suppress(OSError, EnvironmentFailure, RuntimeError):  # RuntimeError: no home folder
                waiting = f"waiting: another process is reading {path}"
                held.enter_context(locked(record_path(path), lambda: say(waiting)))
        yield


def hashed_and_kept(path: Path, stamp: Stamp) -> str:
    """Returns the SHA-256 of a file, read from disk, and keeps it.

    Raises:
        BadInputError: If it cannot be read.
    """
    found = read_and_hash(path)
    # Asked again: what was written while it was read belongs to no stamp.
    if stamp_of(path) == stamp and is_settled(stamp):
        keep_hash(path, stamp, found)
    return found


def has_changed_unseen(path: Path) -> bool:
    """Reads a file whatever is known of it; tells whether it differs though size, times and inode are the same.

    Afterwards what is known is what was read.

    Raises:
        BadInputError: If it cannot be read.
    """
    place, stamp = path.resolve(), stamp_of(path)
    known = _known.get((place, stamp)) or read_kept(place, stamp)
    found = read_and_hash(place)
    if is_settled(stamp):
        _known[place, stamp] = found
        keep_hash(place, stamp, found)
    return known is not None and known != found and stamp_of(path) == stamp


def stamp_of(path: Path) -> Stamp:
    """Returns what a file is recognised by.

    Raises:
        BadInputError: If there is no such file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def is_settled(stamp: Stamp) -> bool:
    """Tells whether a file's last change is long enough ago for its times to tell the next one."""
    return time.time() - max(stamp[1], stamp[2]) / 1e9 > SETTLED_SECONDS


def read_and_hash(path: Path) -> str:
    """Returns a file's SHA-256, read from disk.

    Raises:
        BadInputError: If it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> BadInputError:
    """Returns the error of a file that cannot be read."""
    return BadInputError(f"cannot be read ({error.strerror})", where=str(path), expected="a readable file")


def cache_folder() -> Path:
    """Returns the user's cache folder of this project."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "m2pt" / "sha256"


def record_path(path: Path) -> Path:
    """Returns where a file's hash is kept; every file has a record of its own, so that nobody overwrites another's."""
    return cache_folder() / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"


def read_kept(path: Path, stamp: Stamp) -> str | None:
    """Returns the kept hash of a file that looks like this; None if there is none, or its record is damaged."""
    if stamp[0] < KEPT_FROM_BYTES:
        return None
    try:
        record = json.loads(record_path(path).read_text(encoding="utf-8"))
        is_ours = record["path"] == str(path) and record["stamp"] == list(stamp)
        digest = record["sha256"]
        is_digest = isinstance(digest, str) and len(digest) == 64 and int(digest, 16) >= 0
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return digest if is_ours and is_digest else None


def keep_hash(path: Path, stamp: Stamp, digest: str) -> None:
    """Keeps a large file's hash; what the disk refuses costs a second reading, and nothing else."""
    if stamp[0] < KEPT_FROM_BYTES:
        return
    content = json.dumps({"path": str(path), "stamp": stamp, "sha256": digest}) + "\n"
    with contextlib.suppress(OSError, EnvironmentFailure, RuntimeError):  # RuntimeError: there is no home folder
        cache_folder().mkdir(parents=True, exist_ok=True)
        write_atomically(record_path(path), content.encode())
