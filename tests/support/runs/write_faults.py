"""Faults at every call that changes the disk, one after another: an error of the disk, or the end of the process.

Python's audit hook sees the calls, whoever makes them, before they are made. What has been written into a file is
counted by the call that sees it onto the disk, which Python does not audit.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments.chaos.killable import changed_path, path_of


class Killed(BaseException):
    """Stands for SIGKILL: from here on no call of the process reaches the disk."""


class Faults:
    """Counts the writes below a folder and makes one of them fail, or all from it on."""

    def __init__(self) -> None:
        self.folder = ""
        self.writes = 0
        self.at = 0
        self.error: Callable[[], BaseException] | None = None
        self.lasting = False

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder and (changed_path(event, arguments) or "").startswith(self.folder):
            self.count()

    def sync(self, descriptor: int) -> None:
        if self.folder and path_of(descriptor).startswith(self.folder):
            self.count()

    def count(self) -> None:
        self.writes += 1
        if self.error and (self.writes == self.at or (self.lasting and self.writes > self.at)):
            raise self.error()


FAULTS = Faults()
_INSTALLED: list[bool] = []


@contextlib.contextmanager
def fault(
    folder: Path, at: int, error: Callable[[], BaseException] | None = None, lasting: bool = False
) -> Iterator[Faults]:
    """Makes the numbered write below a folder fail, from 1 on; ``lasting`` all after it too."""
    if not _INSTALLED:
        sys.addaudithook(FAULTS.audit)  # it cannot be taken out again
        _INSTALLED.append(True)
    FAULTS.__init__()
    FAULTS.folder, FAULTS.at, FAULTS.error, FAULTS.lasting = str(folder), at, error, lasting
    sync, os.fsync = os.fsync, FAULTS.sync  # which syncs nothing: hundreds of syncs take minutes
    try:
        yield FAULTS
    finally:
        FAULTS.folder, os.fsync = "", sync


def disk_error(number: int) -> Callable[[], BaseException]:
    """Returns what raises an error of the system."""
    return lambda: OSError(number, os.strerror(number))


def every_fault(
    fresh: Callable[[], Path], write: Callable[[Path], object], errors: list[tuple[Callable[[], BaseException], bool]]
) -> Iterator[tuple[str, Path, BaseException | None]]:
    """Runs a write with a fault at each of its calls in turn, always in a fresh folder.

    Yields:
        What was tried, the folder afterwards, and what was raised.
    """
    folder = fresh()
    with fault(folder, 0) as counted:
        write(folder)
        writes = counted.writes
    assert writes > 0
    for error, lasting in errors:
        for at in range(1, writes + 1):
            folder, raised = fresh(), None
            with fault(folder, at, error, lasting):
                try:
                    write(folder)
                except BaseException as caught:
                    raised = caught
            yield f"{error()!r} at {at} of {writes}, lasting: {lasting}", folder, raised
