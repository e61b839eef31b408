"""Starts the command, follows what it reports, and kills it: at an instant, or inside a write."""

import multiprocessing
import os
import re
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from experiments.chaos.killable import AIM, HOOK, WRITE, Start, as_argument, run
from lightning_m2pt.errors import EnvironmentFailure
from lightning_m2pt.system.checkout import child_environment

LONGEST_START = 600.0
"""Seconds after which a start that has not ended counts as one that hangs."""
CHUNK = 1 << 16


@dataclass(frozen=True)
class KillPlan:
    """When a start is killed.

    Attributes:
        after: Seconds after the start; None for a kill inside a write, or for none at all.
        aimed_at: Number of the write, from 1; 0 for none.
        delay: Seconds that the write goes on before the kill; None if it waits for it.
    """

    after: float | None = None
    aimed_at: int = 0
    delay: float | None = None


@dataclass
class Outcome:
    """What became of a start.

    Attributes:
        seconds: How long it ran.
        place: Where it was killed, in words; None if it ended by itself.
        inside_write: Whether the kill hit the write it was aimed at.
        code: Its exit code if it ended by itself.
        writes: Writes it reported.
    """

    seconds: float = 0.0
    place: str | None = None
    inside_write: bool = False
    code: int | None = None
    writes: int = 0


class Process(Protocol):
    """What a forked and a fresh process have in common."""

    pid: int | None

    def ended(self) -> int | None:
        """Waits for the end and returns the exit code."""


class ForkedProcess:
    """A copy of this process, in which everything is imported already."""

    def __init__(self, start: Start, pipe: int, log: Path) -> None:
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=_exit_with_code, args=(start, pipe, str(log)))
        self._process.start()
        self.pid = self._process.pid

    def ended(self) -> int | None:
        """Waits for the end and returns the exit code."""
        self._process.join()
        return self._process.exitcode


class FreshProcess:
    """A new interpreter."""

    def __init__(self, start: Start, pipe: int, log: Path) -> None:
        words = [sys.executable, "-m", "experiments.chaos.killable", as_argument(start), str(pipe), str(log)]
        self._process = subprocess.Popen(
            words, pass_fds=(pipe,), stdin=subprocess.DEVNULL, env=child_environment("m2pt chaos")
        )
        self.pid: int | None = self._process.pid

    def ended(self) -> int | None:
        """Waits for the end and returns the exit code."""
        return self._process.wait()


def _exit_with_code(start: Start, pipe: int, log: str) -> None:
    sys.exit(run(start, pipe, log))


@dataclass
class _Followed:
    """What a process has reported so far."""

    hook: str = "before training"
    aim: str | None = None
    writes: int = 0
    rest: bytes = b""

    def take(self, content: bytes) -> None:
        *lines, self.rest = (self.rest + content).split(b"\n")
        for line in lines:
            kind, _, text = line.decode(errors="replace").partition(" ")
            if kind == HOOK:
                self.hook = text
            elif kind in (WRITE, AIM):
                self.writes += 1
                if kind == AIM:
                    self.aim = text


def follow(words: list[str], outputs: Path, plan: KillPlan, log: Path, *, fresh: bool) -> Outcome:
    """Runs the command once and kills it as planned, with its loader workers.

    Args:
        words: What ``m2pt`` is called with.
        outputs: Folder of all runs.
        plan: When to kill it.
        log: Where everything it says is appended.
        fresh: Start a new interpreter instead of a copy of this process.

    Raises:
        EnvironmentFailure: If it hangs.
    """
    start = Start(words, str(outputs), plan.aimed_at, held=plan.delay is None)
    reading, writing = os.pipe()
    begun = time.monotonic()
    try:
        process = (FreshProcess if fresh else ForkedProcess)(start, writing, log)
    finally:
        os.close(writing)
    followed, ends_at = _Followed(), begun + (LONGEST_START if plan.after is None else plan.after)
    try:
        if not _read_until(reading, followed, ends_at) and plan.delay is not None:
            time.sleep(plan.delay)
        _kill_group(process)  # loader workers, too; before `ended`, after which the number may be another process's
        code = process.ended()
        _drain(reading, followed)
    finally:
        os.close(reading)
    outcome = Outcome(time.monotonic() - begun, writes=followed.writes)
    if code != -signal.SIGKILL:
        outcome.code = code
    elif followed.aim is None and plan.after is None:
        raise EnvironmentFailure(f"did not end within {LONGEST_START:.0f} s, in {followed.hook}", where=str(log))
    else:
        outcome.inside_write = followed.aim is not None
        outcome.place = f"in {place_of(followed.aim)}" if followed.aim else f"around {followed.hook}"
    return outcome


def place_of(write: str) -> str:
    """Returns a write in words without what differs from one step or process to the next."""
    call, _, path = write.partition(" ")
    parts = Path(path).parts[2:] or (Path(path).name,)
    return f"{call} {re.sub(r'[0-9a-f]{6,}|[0-9]+', '*', '/'.join(parts))}"


def _read_until(reading: int, followed: _Followed, ends_at: float) -> bool:
    """Reads reports until the aim is reached, the time is over or the process ends; tells whether it ended."""
    while followed.aim is None:
        ready, _, _ = select.select([reading], [], [], max(0.0, ends_at - time.monotonic()))
        if not ready:
            return False  # the time is over
        content = os.read(reading, CHUNK)
        if not content:
            return True
        followed.take(content)
    return False


def _drain(reading: int, followed: _Followed) -> None:
    while content := os.read(reading, CHUNK):
        followed.take(content)


def _kill_group(process: Any) -> None:
    with suppress(ProcessLookupError):  # it has ended, or has no session of its own yet
        os.killpg(process.pid, signal.SIGKILL)
        return
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
