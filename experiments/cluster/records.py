"""What is kept of submitted jobs: small JSON files below ``OUTPUT_ROOT/slurm``, each written in one step.

``JOB.json`` is written by who submits; ``JOB.stops.json``, or ``JOB_ELEMENT.stops.json``, by the job itself each time
that ``m2pt`` has ended in it.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.strict_json import parse_json

JOB = re.compile(r"\d+")
ELEMENT = re.compile(r"(\d+)(?:_(\d+))?")
Record = TypeVar("Record", "Submission", "Stops")
BY_ITSELF = ""
"""In the place of an element's number, for a job that is no array."""


@dataclass
class Submission:
    """A submitted job, or an array of them.

    Attributes:
        job: SLURM's number.
        name: What SLURM calls it.
        verb: The verb of ``m2pt``.
        submitted: When, in ISO 8601.
        output_root: Folder of the runs it works in, absolute.
        script: The script's file.
        log: Where it writes, with SLURM's patterns.
        tunes: Whether it trains anything: then it is known from a run's folder whether it gets on.
        labels: What each element is, by its number; by an empty text for a job by itself.
        cancelled: Elements that were cancelled from here.
    """

    job: str
    name: str
    verb: str
    submitted: str
    output_root: str
    script: str
    log: str
    tunes: bool
    labels: dict[str, str]
    cancelled: list[str] = field(default_factory=list)

    @property
    def elements(self) -> list[str]:
        """The job's elements as SLURM's commands take them: ``12``, or ``12_0``, ``12_1``, ..."""
        return [f"{self.job}_{number}" if number else self.job for number in self.labels]

    def log_of(self, element: str) -> Path:
        """Returns where an element writes."""
        job, _, number = element.partition("_")
        return Path(self.log.replace("%A", job).replace("%j", job).replace("%a", number))


@dataclass
class Stops:
    """What became of ``m2pt`` in a job.

    Attributes:
        job: The job, or the element.
        steps: The last checkpoint's step at every stop after which the job went back into the queue; None where no run
            had begun.
        ended: Exit code of the start that was the last; None while there may be another.
        reason: Why a stopped job did not go back into the queue.
    """

    job: str
    steps: list[int | None] = field(default_factory=list)
    ended: int | None = None
    reason: str = ""


def folder_of(output_root: Path) -> Path:
    """Returns where submissions are recorded."""
    return output_root / "slurm"


def write_submission(folder: Path, submission: Submission) -> None:
    """Records a submission."""
    write_json(folder / f"{submission.job}.json", asdict(submission))


def read_submission(folder: Path, job: str) -> Submission | None:
    """Returns what was recorded of a job; None if nothing is.

    Raises:
        BadInputError: If the file is damaged.
    """
    return read_as(Submission, folder / f"{job}.json")


def submissions(folder: Path) -> list[Submission]:
    """Returns all recorded submissions, the oldest first.

    Raises:
        BadInputError: If a file is damaged.
    """
    jobs = [path.stem for path in folder.glob("*.json") if JOB.fullmatch(path.stem)]
    found = [read_submission(folder, job) for job in jobs]
    return sorted((each for each in found if each is not None), key=lambda each: (each.submitted, int(each.job)))


def submission_of(folder: Path, element: str) -> Submission:
    """Returns the submission that a job's or an element's number belongs to.

    Raises:
        BadInputError: If it was not submitted from here.
    """
    match = ELEMENT.fullmatch(element)
    found = read_submission(folder, match[1]) if match else None
    if match is None or found is None or (match[2] is not None and match[2] not in found.labels):
        raise BadInputError(
            f"{element!r:.40} is no job that was submitted from here",
            where=str(folder),
            expected="a number as `m2pt slurm status` shows it, such as 12, or 12_3 of an array",
            hint="--output_root DIR, if it was submitted with one",
        )
    return found


def write_stops(folder: Path, stops: Stops) -> None:
    """Records what became of ``m2pt`` in a job."""
    write_json(folder / f"{stops.job}.stops.json", asdict(stops))


def read_stops(folder: Path, element: str) -> Stops:
    """Returns what is recorded of a job's stops.

    Raises:
        BadInputError: If the file is damaged.
    """
    return read_as(Stops, folder / f"{element}.stops.json") or Stops(element)


def forget_stops(folder: Path, elements: Sequence[str]) -> None:
    """Removes what another job of the same number has left: SLURM begins to count again when its state is lost."""
    for element in elements:
        (folder / f"{element}.stops.json").unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a record in one step; makes its folder if it is missing."""
    os.makedirs(path.parent, exist_ok=True)
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def read_as(kind: type[Record], path: Path) -> Record | None:
    """Returns a record; None if there is no file.

    Raises:
        BadInputError: If the file is damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return kind(**parse_json(content, path))
    except TypeError as error:
        raise BadInputError(
            "this is no record of a job", where=str(path), expected="a file as it was written", hint="remove it"
        ) from error
