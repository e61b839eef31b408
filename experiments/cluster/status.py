"""Where submitted jobs stand: what SLURM says, what the jobs have noted, how far their runs are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from experiments.cluster.records import Stops, Submission, read_stops
from experiments.cluster.runs import RunOfJob, runs_by_job
from experiments.cluster.slurm_commands import Queued, accounted, queued
from lightning_m2pt.system.console import short_path

GONE = "gone"
"""SLURM knows nothing of it any more, and the job has noted no end: it was killed, or its node was lost."""
CANCELLED = "CANCELLED"


@dataclass(frozen=True)
class ElementStatus:
    """A job, or an element of an array, as it stands now.

    Attributes:
        element: ``12`` or ``12_3``.
        label: What it is.
        state: SLURM's word, or what is known without SLURM.
        restarts: How often it was put back into the queue.
        time_left: Until its limit; empty unless it runs.
        note: Why it waits, or how it ended.
        run: The run it works in, or worked in.
    """

    element: str
    label: str
    state: str
    restarts: int
    time_left: str
    note: str
    run: RunOfJob | None


def statuses(folder: Path, submissions: Sequence[Submission]) -> list[ElementStatus]:
    """Returns where every element of submissions stands.

    Raises:
        EnvironmentFailure: If SLURM is not here.
    """
    in_queue = queued()
    stops = {element: read_stops(folder, element) for each in submissions for element in each.elements}
    forgotten = [element for element, left in stops.items() if element not in in_queue and left.ended is None]
    kept = accounted(forgotten)
    runs = {root: runs_by_job(Path(root)) for root in {each.output_root for each in submissions}}
    return [
        status_of(each, element, label, in_queue.get(element), stops[element], kept, runs[each.output_root])
        for each in submissions
        for element, label in zip(each.elements, each.labels.values(), strict=True)
    ]


def status_of(
    submission: Submission,
    element: str,
    label: str,
    seen: Queued | None,
    stops: Stops,
    kept: dict[str, str],
    runs: dict[str, RunOfJob],
) -> ElementStatus:
    """Returns where one element stands."""
    if seen is not None and not is_same(seen, submission):  # SLURM has begun to count again
        seen = None
    restarts, time_left, note = len(stops.steps), "", stops.reason
    if seen is not None:
        state, restarts = seen.state, max(restarts, seen.restarts)
        time_left = seen.time_left if seen.state == "RUNNING" else ""
        note = note or (seen.reason if seen.state == "PENDING" else "")
    elif stops.ended is not None:
        state = "COMPLETED" if stops.ended == 0 else "FAILED"
    elif element in submission.cancelled:
        state = CANCELLED
    else:
        state = kept.get(element, GONE)
    if stops.ended and not note:
        note = f"exit code {stops.ended}"
    return ElementStatus(element, label, state, restarts, time_left, note, runs.get(element))


def is_same(seen: Queued, submission: Submission) -> bool:
    """Tells whether a job of this number is the one that was submitted: its name says so."""
    return bool(seen.name) and submission.name.startswith(seen.name)


def status_table(found: Iterable[ElementStatus]) -> Table:
    """Returns one row for every element."""
    shown = Table(title=Text("jobs"), title_justify="left")
    for column in ("job", "what", "state"):
        shown.add_column(column, no_wrap=column == "job")
    for column in ("restarts", "step", "time left"):
        shown.add_column(column, justify="right")
    shown.add_column("run and note", overflow="fold")
    for status in found:
        run, place = status.run, []
        if run is not None:
            place.append(str(short_path(run.folder)))
        cells = [status.element, status.label, status.state, str(status.restarts) if status.restarts else ""]
        cells += [step_text(run), status.time_left, "\n".join([*place, *([status.note] if status.note else [])])]
        shown.add_row(*map(Text, cells))
    return shown


def step_text(run: RunOfJob | None) -> str:
    """Returns the step of the last checkpoint, and of how many; a complete tuning needs no number."""
    if run is None:
        return ""
    if run.is_tuned:
        return "tuned"
    return f"{run.step} of {run.steps}" if run.steps else str(run.step)
