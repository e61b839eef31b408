"""A lock that keeps two processes from working on one file; a kill releases it.

``flock`` itself, and not the library ``filelock`` (4.2 was looked at): its locks keep their descriptor to themselves,
and everything here needs it. Those who wait are told what the holder has written, a lock whose file was removed is
noticed and taken again before anything is written, a sweep's children hold their parent's lock, and one who waits is
woken by the kernel instead of asking again and again. Its ``lock_descriptor`` would take the place of ``try_flock``
alone.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from lightning_m2pt.errors import EnvironmentFailure

TEXT_BYTES = 4096
"""More than anybody writes into a lock."""
OPENED = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
"""A link in a lock's place leads to somebody's file, which the lock's text would replace."""


def lock_file(path: Path) -> Path:
    """Returns the hidden file beside a file or folder that is locked in its stead."""
    return path.with_name(f".{path.name}.lock")


class HeldLock:
    """A lock while it is held.

    Args:
        path: The hidden file that is locked.
        descriptor: Of the file, open and locked.

    Attributes:
        is_anothers: Whether the file is to stay when the lock is given back: a process of a machine with which no locks
            are shared goes by it.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.is_anothers = False

    def write(self, text: str) -> None:
        """Writes what those who find the lock held are told."""
        with lock_failures(self.path):
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, text.encode(), 0)

    def check(self) -> None:
        """Makes sure that nobody else can hold the lock; to be called before anything is written.

        Whoever cleans up hidden files may have removed the lock's, and then another process can lock a new one. If none
        has, the lock is taken again.

        Raises:
            EnvironmentFailure: If another process holds it by now, or its file cannot be made again.
        """
        if is_still_there(self.path, self.descriptor):
            return
        with lock_failures(self.path):
            descriptor = os.open(self.path, OPENED)
            if not try_flock(descriptor) or not is_still_there(self.path, descriptor):
                os.close(descriptor)
                raise EnvironmentFailure(
                    "was removed while it was held, and another process has locked it since",
                    where=str(self.path),
                    expected="one process at a time",
                    hint="this one has stopped and written nothing more; let nothing clean up these files",
                )
            text = os.pread(self.descriptor, TEXT_BYTES, 0).decode()
        os.close(self.descriptor)
        self.descriptor = descriptor
        self.write(text)

    def release(self) -> None:
        """Removes the file, if it is still this lock's, and gives the lock back."""
        if not self.is_anothers and is_still_there(self.path, self.descriptor):
            self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[HeldLock]:
    """Waits until no other process holds the lock of a file, then holds it.

    The lock is a hidden file beside it, removed at the end; what a kill leaves of it locks nothing.

    Args:
        path: The file or folder; neither it nor the folder it lies in need be there.
        on_wait: Called if there is something to wait for; what it raises ends the waiting before it begins.

    Raises:
        EnvironmentFailure: If the lock's file cannot be written, or the file system has no locks.
    """
    lock = lock_file(path)
    held = HeldLock(lock, acquired(lock, on_wait))
    try:
        yield held
    finally:
        held.release()


def remove_if_free(path: Path) -> None:
    """Removes what a killed process has left of a file's lock; one that is held, or cannot be removed, stays."""
    lock = lock_file(path)
    with contextlib.suppress(OSError):
        descriptor = os.open(lock, os.O_RDWR)
        try:
            if try_flock(descriptor) and is_still_there(lock, descriptor):
                lock.unlink()
        finally:
            os.close(descriptor)


def acquired(lock: Path, on_wait: Callable[[], None]) -> int:
    """Returns a descriptor of a lock's file once it is locked."""
    while True:
        with lock_failures(lock):
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, OPENED)
        try:
            with lock_failures(lock):
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
def lock_failures(lock: Path) -> Iterator[None]:
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
