"""Locks that end with the processes that hold them, however these end."""

import os
from pathlib import Path

from lightning_m2pt.system.file_lock import lock_failures, try_flock


def try_lock(path: Path) -> int | None:
    """Takes an exclusive lock on a file without waiting.

    The lock belongs to the open descriptor: a child process that is given it (``pass_fds``) holds the lock as well,
    even when its parent was killed.

    Args:
        path: The lock's file; made with its folder if missing, and never deleted.

    Returns:
        A descriptor; closing it gives the lock back. None if somebody else holds it.

    Raises:
        EnvironmentFailure: If the file system has no locks, or the file cannot be written.
    """
    with lock_failures(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            is_ours = try_flock(descriptor)
        except OSError:
            os.close(descriptor)
            raise
    if is_ours:
        return descriptor
    os.close(descriptor)
    return None


def is_locked(path: Path) -> bool:
    """Tells whether somebody holds the lock now; makes no file."""
    if not path.exists():
        return False
    descriptor = try_lock(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False
