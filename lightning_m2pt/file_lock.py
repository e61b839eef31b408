"""A lock that keeps two processes from working on one file; a kill releases it."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from lightning_m2pt.errors import EnvironmentFailure


def lock_file(path: Path) -> Path:
    """Returns the hidden file beside a file or folder that is locked in its stead."""
    return path.with_name(f".{path.name}.lock")


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Waits until no other process holds the lock of a file, then holds it.

    The lock is a hidden file beside it, removed at the end; what a kill leaves of it locks nothing.

    Args:
        path: The file or folder; neither it nor the folder it lies in need be there.
        on_wait: Called if there is something to wait for; what it raises ends the waiting before it begins.

    Raises:
        EnvironmentFailure: If the lock's file cannot be written, or the file system has no locks.
    """
    lock = lock_file(path)
    descriptor = taken(lock, on_wait)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def taken(lock: Path, on_wait: Callable[[], None]) -> int:
    """Returns a descriptor of a lock's file once it is locked."""
    while True:
        with reported(lock):
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT)
        try:
            with reported(lock):
                is_ours = try_flock(descriptor)
            if not is_ours:
                on_wait()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        except BaseException:
            os.close(descriptor)
            raise
        if is_still_there(lock, descriptor):
            return descriptor
        os.close(descriptor)  # whoever held it has removed it: others may lock a new one meanwhile


def try_flock(descriptor: int) -> bool:
    """Locks an open file if nobody else has; tells whether it is ours now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def reported(lock: Path) -> Iterator[None]:
    """Turns what the system says about a lock's file into an error of ours."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot be locked: {error.strerror or error}",
            where=str(lock),
            expected="a writable folder on a file system with locks (flock)",
        ) from error


def is_still_there(path: Path, descriptor: int) -> bool:
    """Tells whether an open file still stands under its name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
