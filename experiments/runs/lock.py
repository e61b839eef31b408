"""One process at a time tunes in a run's folder; a second one is refused, and told which process is there."""

import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.atomic_files import is_alive
from lightning_m2pt.system.console import is_main_process, say
from lightning_m2pt.system.file_lock import lock_file, locked
from lightning_m2pt.system.strict_json import parse_json


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
        BadInputError: If another process tunes there, with its number and host.
        EnvironmentFailure: If the lock cannot be written.
    """
    if not is_main_process():
        yield lambda: None
        return
    run = run.resolve()
    with locked(run, on_wait=lambda: refuse_or_wait(run)) as lock:
        lock.write(json.dumps(asdict(Holder(os.getpid(), platform.node()))))
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
    named = f"process {holder.process} on {holder.host}" if holder is not None else "another process"
    raise BadInputError(
        f"{named} is training in this folder",
        where=str(run),
        expected="one process at a time in a run's folder",
        hint="wait until it has ended, or stop it; then the same command goes on",
    )


def holder_of(run: Path) -> Holder | None:
    """Returns who holds a run's lock; None while it has not written so."""
    try:
        return Holder(**parse_json(lock_file(run).read_bytes(), lock_file(run)))
    except (OSError, ValueError, TypeError):
        return None
