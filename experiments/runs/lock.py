"""One process at a time tunes in a run's folder; a second one is refused, and told which process is there.

Some file systems lock for each machine alone (Lustre with ``localflock``, NFS without a lock manager). So whoever holds
a lock also touches its file again and again; one that finds another machine's name in it looks whether that goes on.
"""

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.atomic_files import is_alive
from lightning_m2pt.system.console import is_main_process, say
from lightning_m2pt.system.file_lock import HeldLock, lock_file, locked
from lightning_m2pt.system.strict_json import parse_json

TOUCHED_SECONDS = 10.0
"""Between two signs of life."""
LISTENING_SECONDS = 45.0
"""Several signs of life, and what a network's file system may hide one for."""
LONG_AGO_SECONDS = 900.0
"""No sign for so long, whatever two machines' clocks differ by: nobody is there."""


@dataclass(frozen=True)
class Holder:
    """What stands in a lock that is held: the number of the process, and its machine."""

    process: int
    host: str


@contextmanager
def alone_in(run: Path) -> Iterator[Callable[[], None]]:
    """Keeps other processes from tuning in a run's folder while the block runs.

    Only the main process of a run locks: its other ranks belong to it. The lock stands beside the folder, which
    ``--force`` empties, and is gone with the process that holds it.

    Yields:
        A check that the folder is still this process's alone, which raises if it is not: the lock's file may have been
        cleaned up by somebody.

    Raises:
        BadInputError: If another process tunes there, with its number and host, on this machine or another one.
        EnvironmentFailure: If the lock cannot be written.
    """
    if not is_main_process():
        yield lambda: None
        return
    run = run.resolve()
    with locked(run, on_wait=lambda: refuse_or_wait(run)) as lock:
        refuse_another_machine(run, lock)
        lock.write(json.dumps(asdict(Holder(os.getpid(), platform.node()))))
        with signs_of_life(lock):
            yield lock.check


def refuse_or_wait(run: Path) -> None:
    """Refuses a folder whose lock is held, unless by what is left of a process that was killed: that ends at once.

    Raises:
        BadInputError: Naming the process.
    """
    holder = holder_of(run)
    if holder is not None and holder.host == platform.node() and not is_alive(holder.process):
        say(f"waiting: loader workers of process {holder.process}, which was killed, are ending")
        return
    raise taken(run, f"process {holder.process} on {holder.host}" if holder is not None else "another process")


def taken(run: Path, named: str) -> BadInputError:
    """Returns the error of a folder that a process, named like this, tunes in."""
    return BadInputError(
        f"{named} is training in this folder",
        where=str(run),
        expected="one process at a time in a run's folder",
        hint="wait until it has ended, or stop it; then the same command goes on",
    )


def refuse_another_machine(run: Path, lock: HeldLock) -> None:
    """Refuses a folder whose lock is ours while a process of another machine, which the lock says nothing to, is there.

    Raises:
        BadInputError: If its signs of life go on.
    """
    holder = holder_of(run)
    if holder is None or holder.host == platform.node():
        return  # left by a process of this machine that was killed: the lock itself says so
    first = touched(lock.path)
    if time.time() - first > LONG_AGO_SECONDS:
        return
    named = f"process {holder.process} on {holder.host}"
    say(f"waiting: {named} has tuned here; {LISTENING_SECONDS:.0f} seconds whether it still does")
    until = time.monotonic() + LISTENING_SECONDS
    while time.monotonic() < until:
        time.sleep(TOUCHED_SECONDS / 10)
        if touched(lock.path) != first:
            lock.is_anothers = True
            raise taken(run, named)


def touched(path: Path) -> float:
    """Returns when a file was touched last; it is opened, for a network's file system to ask its server."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)


@contextmanager
def signs_of_life(lock: HeldLock) -> Iterator[None]:
    """Touches a lock's file again and again while the block runs, whatever the main thread waits for."""
    is_over = threading.Event()

    def touch() -> None:
        while not is_over.wait(TOUCHED_SECONDS):
            try:
                os.utime(lock.path)
            except OSError:
                continue  # removed by somebody: the lock's own check takes it again, or refuses

    thread = threading.Thread(target=touch, name="signs-of-life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def holder_of(run: Path) -> Holder | None:
    """Returns who holds a run's lock; None while it has not written so."""
    try:
        return Holder(**parse_json(lock_file(run).read_bytes(), lock_file(run)))
    except (OSError, ValueError, TypeError):
        return None
