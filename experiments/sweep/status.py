"""Where a sweep stands, read from its record: a table for people, and how many minutes it may still take.

The time left is known from complete jobs of the same configuration in the same sweep, and is never guessed.
"""

import csv
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from experiments.sweep.jobs import Job
from experiments.sweep.record import Entry, State, SweepRecord, why_incomplete
from experiments.sweep.runner import trial_folder
from lightning_m2pt.storage.run_record import CONFIG_FILE, MADE_WITH, RECORD_FILE
from lightning_m2pt.system.strict_json import parse_json

LONGEST_NOTE = 100
ENDED = (State.DONE, State.FAILED)
"""What this start of the sweep does not wait for any more."""
METRICS_FILE, STEP = "metrics.csv", "step"
"""Of ``callbacks.loggers``, whose import would load torch; a test compares them."""


@dataclass(frozen=True)
class JobStatus:
    """A job as it stands now.

    Attributes:
        job: The job.
        state: Where it stands.
        entry: What is recorded; None if nothing is.
    """

    job: Job
    state: State
    entry: Entry | None


@dataclass(frozen=True)
class TimeLeft:
    """What complete jobs tell about the others.

    Attributes:
        minutes: For the jobs whose time is known.
        unknown: Labels of the variants none of whose like is complete yet.
    """

    minutes: float
    unknown: tuple[str, ...]

    @property
    def text(self) -> str:
        """What people read."""
        if not self.unknown:
            return f"about {self.minutes:.0f} minutes left"
        named = ", ".join(self.unknown[:3]) + (f" and {len(self.unknown) - 3} more" if len(self.unknown) > 3 else "")
        known = f"more than {self.minutes:.0f}" if self.minutes >= 1 else "unknown"
        return f"minutes left: {known} (nothing complete yet of {named})"


def statuses(jobs: Sequence[Job], record: SweepRecord) -> list[JobStatus]:
    """Returns where every job stands now."""
    return [JobStatus(job, record.state(job), record.read(job)) for job in jobs]


def time_left(found: Sequence[JobStatus], at_a_time: int | None, now: float) -> TimeLeft:
    """Returns what is known of the time that is left.

    Args:
        found: All jobs.
        at_a_time: How many run at once; None takes as many as run now.
        now: Seconds since 1970.
    """
    measured: dict[tuple[str, tuple[Path, ...]], list[float]] = defaultdict(list)
    for status in found:
        if status.state == State.DONE and status.entry is not None and status.entry.whole:
            measured[similarity_key(status.job)].append(status.entry.ended - status.entry.started)
    seconds, unknown = 0.0, []
    for status in found:
        if status.state in ENDED:
            continue
        if similarity_key(status.job) not in measured:
            unknown.append(status.job.label)
            continue
        gone = now - status.entry.started if status.state == State.RUNNING and status.entry is not None else 0.0
        seconds += max(0.0, statistics.fmean(measured[similarity_key(status.job)]) - gone)
    together = at_a_time or max(1, sum(status.state == State.RUNNING for status in found))
    return TimeLeft(seconds / together / 60, tuple(dict.fromkeys(unknown)))


def similarity_key(job: Job) -> tuple[str, tuple[Path, ...]]:
    """Returns what jobs of about the same length have in common."""
    return job.kind, job.configs


def status_table(found: Sequence[JobStatus], title: str) -> Table:
    """Returns one row for every variant, its trials apart from its cells."""
    shown = Table(title=Text(title), title_justify="left")
    shown.add_column("", no_wrap=True)
    for column in ("done", "running", "failed", "waiting"):
        shown.add_column(column, justify="right")
    shown.add_column("now")
    rows: dict[tuple[str, str], list[JobStatus]] = defaultdict(list)
    for status in found:
        rows[status.job.label, status.job.kind].append(status)
    for (label, kind), of_row in rows.items():
        counts = [sum(status.state in states for status in of_row) for states in COUNTED]
        title = {"trial": f"{label} (rates)", "transfer": f"{label} (transfers)"}.get(kind, label)
        cells = [f"{counts[0]} of {len(of_row)}", *(str(count) if count else "" for count in counts[1:])]
        shown.add_row(Text(title), *cells, Text("\n".join(notes(of_row))))
    return shown


COUNTED = ((State.DONE,), (State.RUNNING,), (State.FAILED,), (State.WAITING, State.CUT_OFF))


def notes(found: Sequence[JobStatus]) -> list[str]:
    """Returns one line for every job that runs, failed, was cut off, or has lost its results."""
    lines = []
    for status in found:
        name, entry = status.job.name, status.entry
        if status.state == State.RUNNING and status.job.kind == "transfer":
            lines.append(f"{name}: answering")
        elif status.state == State.RUNNING:
            lines.append(f"{name}: {step_text(run_of(status.job))}")
        elif status.state == State.FAILED and entry is not None:
            lines.append(f"{name}: {entry.error[:LONGEST_NOTE]}")
        elif status.state == State.CUT_OFF:
            lines.append(f"{name}: cut off, goes on")
        elif entry is not None and entry.state == State.DONE and status.state == State.WAITING:
            lines.append(f"{name}: runs again, {why_incomplete(status.job, entry)[:LONGEST_NOTE]}")
    return lines


def run_of(job: Job) -> Path | None:
    """Returns the run folder a job works in: the one whose record names its command as the latest."""
    if job.kind == "trial":
        return Path(trial_folder(job))
    runs = (job.output_root / job.configs[0].stem).glob(f"*/{RECORD_FILE}")
    wanted = without_folders(job.commands[0])
    return next((path.parent for path in runs if without_folders(latest_command(path)) == wanted), None)


def without_folders(words: Sequence[str]) -> list[str]:
    """Returns a command's words with files by their names: the folder it was given in does not count."""
    return [Path(word).name if word.endswith(".yaml") else word for word in words]


def latest_command(path: Path) -> list[str]:
    """Returns the words a run was last started with; empty if its record cannot be read now."""
    try:
        return [str(word) for word in parse_json(path.read_bytes(), path)[MADE_WITH][-1]["command"][1:]]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def step_text(run: Path | None) -> str:
    """Returns the step a run is at, of how many, as far as its files say."""
    try:
        assert run is not None
        with (run / METRICS_FILE).open(encoding="utf-8", newline="") as file:
            step = max(int(row[STEP]) for row in csv.DictReader(file) if (row[STEP] or "").isdecimal())
        planned = parse_json((run / CONFIG_FILE).read_bytes(), run / CONFIG_FILE)["trainer"]["max_steps"]
    except (OSError, ValueError, LookupError, TypeError, AssertionError):
        return "starting"
    return f"step {step} of {planned}" if isinstance(planned, int) and planned > 0 else f"step {step}"


def summary_line(found: Sequence[JobStatus], at_a_time: int | None) -> str:
    """Returns counts and the time left (see ``time_left``) in one line."""
    counts = [f"{sum(status.state == state for status in found)} {state}" for state in State]
    left = [status for status in found if status.state not in ENDED]
    return ", ".join(count for count in counts if count[0] != "0") + (
        f"; {time_left(found, at_a_time, time.time()).text}" if left else ""
    )
