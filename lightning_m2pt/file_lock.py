"""A lock that keeps two processes from working on one file; a kill releases it."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Waits until no other process holds the lock of a file, then holds it.

    The lock is a hidden file beside it, removed at the end; what a kill leaves of it locks nothing.

    Args:
        path: The file; neither it nor its folder need be there.
        on_wait: Called if there is something to wait for.
    """
    lock = path.with_name(f".{path.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if is_still_there(lock, descriptor):
            break
        os.close(descriptor)  # whoever held it has removed it: others may lock a new one meanwhile
    try:
        yield
    finally:
        lock.unlink()
        os.close(descriptor)


def is_still_there(path: Path, descriptor: int) -> bool:
    """Tells whether an open file still stands under its name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
