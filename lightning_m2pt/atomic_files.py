"""Writing a file so that, whatever happens, either the old content or the whole new one stands under its name."""

import contextlib
import os
import shutil
from pathlib import Path

from lightning_m2pt.errors import EnvironmentFailure


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file through a temporary one in the same folder.

    The same folder, because a rename is atomic only within one file system.

    Args:
        path: Where the content shall stand; its folder must exist.
        content: All of it.

    Raises:
        EnvironmentFailure: If it cannot be written; the old file is untouched then.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, len(content), error) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def sync_folder(folder: Path) -> None:
    """Makes renames inside a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_write(path: Path, needed: int, error: OSError) -> EnvironmentFailure:
    """Returns the error that names the path, the bytes it needs and the bytes there are."""
    existing = next(folder for folder in [path, *path.absolute().parents] if folder.exists())
    free = shutil.disk_usage(existing).free
    return EnvironmentFailure(
        f"cannot be written: {error.strerror or error}",
        where=str(path),
        expected=f"a writable folder with {needed} free bytes (there are {free})",
        hint="free some space or name another folder, then start the same command again",
    )
