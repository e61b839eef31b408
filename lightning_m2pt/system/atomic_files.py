"""Writing a file so that, whatever happens, either the old content or the whole new one stands under its name."""

import contextlib
import errno
import os
import platform
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from lightning_m2pt.errors import EnvironmentFailure

DRAFT = re.compile(r"[.](?P<name>.+)[.](?:(?P<host>\w*)-)?(?P<process>[0-9]+)[.]draft")
DRAFT_IS_DEAD_AFTER = 24 * 3600.0
"""Seconds without a change after which a draft of another machine counts as left over."""

ROOM, PLACE, DISK = (
    "free some space, then start the same command again",
    "name another folder, or get the right to write there; then start the same command again",
    "look after the disk or name another folder; then start the same command again",
)
HINTS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST), PLACE),
}


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file through a temporary one in the same folder.

    The same folder, because a rename is atomic only within one file system. Drafts of this file that killed processes
    have left are removed.

    Args:
        path: Where the content shall stand; its folder must exist.
        content: All of it.

    Raises:
        EnvironmentFailure: If it cannot be written; the old file is untouched then.
    """
    write_parts_atomically(path, [content])


def write_parts_atomically(path: Path, parts: Sequence[bytes | memoryview]) -> None:
    """Writes a file of several parts, one behind the other, as ``write_atomically`` does.

    Args:
        path: Where the content shall stand; its folder must exist.
        parts: All of it, in bytes.

    Raises:
        EnvironmentFailure: If it cannot be written; the old file is untouched then.
    """
    draft = draft_of(path)
    try:
        remove_dead_drafts(path.parent, path.name)
        with draft.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, sum(map(len, parts)), error) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def draft_of(path: Path) -> Path:
    """Returns where this process writes a file before it gets its name; the draft's name tells machine and process."""
    return path.with_name(f".{path.name}.{this_machine()}-{os.getpid()}.draft")


def this_machine() -> str:
    """Returns this machine's name in letters, digits and underscores."""
    return re.sub(r"\W", "_", platform.node())


def remove_dead_drafts(folder: Path, name: str | None = None) -> None:
    """Removes the drafts that processes which are no more have left in a folder.

    A draft of this machine is dead with its process, one of another machine (and of versions that wrote no machine
    into its name) when nobody has changed it for a day. What cannot be removed stays: it harms nobody.

    Args:
        folder: The folder; not those inside it.
        name: Only drafts of this file; None for those of all.
    """
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = DRAFT.fullmatch(entry.name)
            if match is not None and name in (None, match["name"]) and is_dead(entry, match):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def is_dead(draft: os.DirEntry[str], match: re.Match[str]) -> bool:
    """Tells whether nobody writes a draft any more."""
    if match["host"] == this_machine():
        return not is_alive(int(match["process"]))
    try:
        return time.time() - draft.stat(follow_symlinks=False).st_mtime > DRAFT_IS_DEAD_AFTER
    except OSError:
        return False


def is_alive(process: int) -> bool:
    """Tells whether a process of this machine is there."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # somebody else's
    return True


def sync_folder(folder: Path) -> None:
    """Makes renames inside a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_write(path: Path, needed: int, error: OSError) -> EnvironmentFailure:
    """Returns the error that names the path, the bytes it needs and the bytes there are, as far as the disk tells."""
    free = free_bytes(path)
    there_are = "" if free is None else f" (there are {free})"
    return EnvironmentFailure(
        f"cannot be written: {error.strerror or error}",
        where=str(path),
        expected=f"a writable folder with {needed} free bytes{there_are}",
        hint=HINTS.get(error.errno or 0, DISK),
    )


def free_bytes(path: Path) -> int | None:
    """Returns the free bytes of the file system a path is or would be on; None if it does not tell."""
    for folder in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(folder).free
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno != errno.ENOTDIR:
                return None
    return None
