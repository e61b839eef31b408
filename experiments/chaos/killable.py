"""The process that is killed: it runs the real command and tells the killer over a pipe where it is.

It says when a hook of the training begins, and when a call that changes the disk is about to be made below the output
folder, so that a kill can be aimed between two of them. Python's audit hook sees these calls whoever makes them.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RELATIVE = ("os.rename", "os.mkdir", "os.remove", "os.rmdir")
"""Calls whose last argument may be an open folder."""
CHANGES = (*RELATIVE, "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
HELD_SECONDS = 60.0
HOOK, WRITE, AIM = "hook", "write", "aim"
"""What a message begins with; ``aim`` is the write a kill was aimed at."""


@dataclass(frozen=True)
class Start:
    """One start of the command.

    Attributes:
        words: What ``m2pt`` is called with.
        outputs: Folder of all runs; only writes below it are reported.
        aimed_at: Number of the write that a kill is aimed at, from 1; 0 for none.
        held: Whether that write waits until the kill comes, instead of going on meanwhile.
    """

    words: Sequence[str]
    outputs: str
    aimed_at: int = 0
    held: bool = False


class Reporter:
    """Sends one line for every hook and write of this process.

    Args:
        start: What is run.
        pipe: Descriptor of the pipe's writing end.
    """

    def __init__(self, start: Start, pipe: int) -> None:
        self.start = start
        self.pipe = pipe
        self.process = os.getpid()
        self.writes = 0

    def say(self, kind: str, text: str) -> None:
        """Sends a line; loader workers, which inherit all this, send nothing."""
        if os.getpid() == self.process:
            os.write(self.pipe, f"{kind} {text}\n".encode())

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Takes what Python tells of a system call that is about to be made."""
        path = changed_path(event, arguments)
        if path is not None:
            self.write(event, path)

    def write(self, call: str, path: str) -> None:
        """Reports a write, and waits to be killed in it if a kill is aimed there."""
        if not path.startswith(self.start.outputs) or os.getpid() != self.process:
            return
        self.writes += 1
        is_aimed_at = self.writes == self.start.aimed_at
        self.say(AIM if is_aimed_at else WRITE, f"{call} {os.path.relpath(path, self.start.outputs)}")
        if is_aimed_at and self.start.held:
            time.sleep(HELD_SECONDS)


def changed_path(event: str, arguments: tuple[Any, ...]) -> str | None:
    """Returns the path that an audited call is about to change; None if it changes nothing on the disk."""
    if event == "open":
        path, _, flags = arguments
        is_write = isinstance(path, str | bytes | os.PathLike) and isinstance(flags, int) and flags & WRITING
        return os.fsdecode(path) if is_write else None
    if event not in CHANGES:
        return None
    if isinstance(arguments[0], int):
        return path_of(arguments[0])
    name = os.fsdecode(arguments[0])
    folder = arguments[-1] if event in RELATIVE and isinstance(arguments[-1], int) else -1
    return os.path.join(path_of(folder), name) if folder >= 0 else os.path.abspath(name)


def path_of(descriptor: int) -> str:
    """Returns the path of an open file or folder."""
    return os.readlink(f"/proc/self/fd/{descriptor}")


def report_hooks(reporter: Reporter) -> None:
    """Lets the Trainer tell which hook it calls."""
    from lightning.pytorch.trainer import call

    call_hooks = call._call_callback_hooks

    def reported(trainer: Any, hook_name: str, *arguments: Any, **named: Any) -> None:
        reporter.say(HOOK, hook_name)
        call_hooks(trainer, hook_name, *arguments, **named)

    call._call_callback_hooks = reported


def report_syncs(reporter: Reporter) -> None:
    """Counts what sees files onto the disk among the writes: Python audits it not."""
    sync = os.fsync

    def reported(descriptor: int) -> None:
        reporter.write("os.fsync", path_of(descriptor))
        sync(descriptor)

    os.fsync = reported  # type: ignore[assignment]


def run(start: Start, pipe: int, log: str) -> int:
    """Runs the command in a session of its own, with everything it says in a log."""
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    import lightning_m2pt.torchvision_guard  # noqa: F401  (before Lightning)
    from lightning_m2pt.main import main

    reporter = Reporter(start, pipe)
    report_hooks(reporter)
    report_syncs(reporter)
    sys.addaudithook(reporter.audit)
    return main(start.words)


def as_argument(start: Start) -> str:
    """Returns a start as one word of a command line."""
    return json.dumps(asdict(start))


if __name__ == "__main__":
    sys.exit(run(Start(**json.loads(sys.argv[1])), int(sys.argv[2]), str(Path(sys.argv[3]))))
