"""How far a download is and how long it will take, read off the folder that it fills.

Not from the library that downloads: its bars and their totals change between versions, and know a file only once it has
begun.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from lightning_m2pt.system.console import OUT, is_main_process

SECONDS_BETWEEN_LOOKS = 0.5
BLOCK = 512
"""Bytes of what ``st_blocks`` counts."""


@contextmanager
def shown_progress(folder: Path, total: int) -> Iterator[None]:
    """Shows on a terminal how many of some bytes are in a folder, how fast they come and when the last will be there.

    Args:
        folder: What the download fills, with its unfinished files; it may come into being meanwhile.
        total: Bytes of all files.
    """
    if not (total and is_main_process() and sys.stdout.isatty()):
        yield
        return
    done = threading.Event()
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=OUT) as shown:
        task = shown.add_task("fetching", total=total, completed=min(total, bytes_below(folder)))

        def watch() -> None:
            while not done.wait(SECONDS_BETWEEN_LOOKS):
                shown.update(task, completed=min(total, bytes_below(folder)))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def bytes_below(folder: Path) -> int:
    """Returns how many bytes of the files below a folder are on disk; links count as nothing.

    A file that was given its length before its content counts as far as it is written.
    """
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # it got its final name meanwhile
                status = os.lstat(os.path.join(place, name))
                found += min(status.st_size, status.st_blocks * BLOCK)
    return found
