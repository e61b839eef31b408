"""What a sweep knows of its jobs: one small file each, written atomically, and one lock each.

A file never says more than what has happened: "done" is written after exit code 0, when the results are on the disk,
and is believed only as long as they are. "Running" is no entry at all but a held lock: the system gives it back
when the last process that holds it has ended, whatever ended it.
"""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from experiments.sweep.jobs import Job
from experiments.sweep.locks import is_locked, try_lock
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.runs.results_file import RESULTS_FILE, TUNED, UNTOUCHED
from lightning_m2pt.storage.run_record import read_run_record
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.strict_json import parse_json

TRANSFER_FILE = "transfer.json"
"""What ``m2pt transfer`` writes last."""


class State(StrEnum):
    """Where a job stands."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    CUT_OFF = "cut off"
    WAITING = "waiting"


@dataclass
class Entry:
    """What is recorded of a job.

    Attributes:
        label: The variant's label.
        name: Tells the variant's jobs apart.
        commands: What is run, as a shell takes it.
        log: File with everything the commands wrote.
        state: ``cut off`` from its start on, and until something better is known.
        started: When it was last started, in seconds since 1970.
        ended: When it ended.
        exit_code: Of the last command; negative for a signal.
        error: One line about what went wrong.
        run: Its run's folder, once known.
        whole: Whether ``ended - started`` is the time of all its work: not resumed, nothing found done.
        values: A trial's validation figures.
    """

    label: str
    name: str
    commands: list[str]
    log: str
    state: State = State.WAITING
    started: float = 0.0
    ended: float = 0.0
    exit_code: int | None = None
    error: str = ""
    run: str = ""
    whole: bool = False
    values: dict[str, float] = field(default_factory=dict)


class SweepRecord:
    """The record of one sweep.

    Args:
        folder: The sweep's own folder.
        locks: Folder of the locks, shared by all sweeps of an output folder: a job that two sweeps have in common is
            run by one of them.
    """

    def __init__(self, folder: Path, locks: Path) -> None:
        self.folder = folder
        self._locks = locks

    def log_file(self, job: Job) -> Path:
        """Returns where everything stands that a job's commands wrote."""
        return self.folder / "logs" / f"{job.file_stem}.log"

    def lock_file(self, job: Job) -> Path:
        """Returns the file that is locked while a job runs."""
        return self._locks / f"{job.key}.lock"

    def lock(self, job: Job) -> int | None:
        """Takes a job: returns the descriptor of its lock, or None if somebody else runs it."""
        return try_lock(self.lock_file(job))

    def read(self, job: Job) -> Entry | None:
        """Returns what is recorded of a job; None if there is nothing that can be read."""
        try:
            content: dict[str, Any] = parse_json(self._entry_file(job).read_bytes(), self._entry_file(job))
            return Entry(**{**content, "state": State(content["state"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None  # a job whose entry is lost is run again, and finds what is complete

    def write(self, job: Job, entry: Entry) -> None:
        """Records a job."""
        path = self._entry_file(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(asdict(entry), indent=2) + "\n").encode())

    def state(self, job: Job) -> State:
        """Returns where a job stands now."""
        entry = self.read(job)
        if entry is not None and is_complete(job, entry):
            return State.DONE
        if is_locked(self.lock_file(job)):
            return State.RUNNING
        if entry is None or entry.state == State.DONE:  # its results were taken away
            return State.WAITING
        return entry.state

    def _entry_file(self, job: Job) -> Path:
        return self.folder / "jobs" / f"{job.file_stem}.json"


def is_complete(job: Job, entry: Entry) -> bool:
    """Tells whether a job is done: it ended with exit code 0, and its results are still there and readable."""
    return entry.state == State.DONE and entry.exit_code == 0 and not why_incomplete(job, entry)


def why_incomplete(job: Job, entry: Entry) -> str:
    """Returns what a job that ended with exit code 0 lacks now; empty if nothing."""
    if job.kind == "trial":
        return "" if entry.values else "no validation figures"
    if job.kind == "transfer":
        return "" if (Path(entry.run) / TRANSFER_FILE).is_file() else f"no {TRANSFER_FILE}"
    try:
        read_results(Path(entry.run))
        read_run_record(Path(entry.run))
    except BadInputError as error:
        return f"{'/'.join(Path(error.where).parts[-2:])}: {error.what}"
    return ""


def read_results(run: Path) -> dict[str, Any]:
    """Returns what ``m2pt train`` wrote last: scores by set, and what was trained.

    Raises:
        BadInputError: If it is missing or damaged.
    """
    path = run / RESULTS_FILE
    try:
        content: dict[str, Any] = parse_json(path.read_bytes(), path)
        for score in (*content[TUNED].values(), *content[UNTOUCHED].values()):
            float(score["value"]), float(score["raw"])
        float(content["parameters"]["percent"])
    except OSError as error:
        raise BadInputError(f"cannot be read: {error.strerror}", where=str(path), expected="a run's results") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise BadInputError(
            f"damaged ({type(error).__name__}: {error})", where=str(path), expected="a run's results"
        ) from error
    return content
