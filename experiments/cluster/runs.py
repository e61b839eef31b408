"""Which run a job works in, and how far it is: read from the run's folder, without torch."""

import re
from dataclasses import dataclass
from pathlib import Path

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.run_record import (
    COMPLETED,
    CONFIG_FILE,
    MADE_WITH,
    RECORD_FILE,
    SLURM_JOB,
    read_run_record,
)
from lightning_m2pt.system.strict_json import parse_json

CHECKPOINT = re.compile(r"step=(\d{6,})")
"""Of ``lightning_m2pt.storage.checkpoint``, whose import loads torch; a test compares them."""
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class RunOfJob:
    """A run, as far as a job has brought it.

    Attributes:
        folder: Its folder.
        step: Step of its last checkpoint; 0 before there is one.
        steps: Steps in all; None where its configuration counts epochs.
        is_tuned: Whether its tuning is complete.
    """

    folder: Path
    step: int
    steps: int | None
    is_tuned: bool


def runs_by_job(output_root: Path) -> dict[str, RunOfJob]:
    """Returns the runs of an output folder by the job that has worked in them last."""
    found: dict[str, RunOfJob] = {}
    for path in output_root.glob(f"*/*/{RECORD_FILE}"):
        try:
            record = read_run_record(path.parent)
        except (BadInputError, OSError):
            continue  # damaged, or being removed: the run's own verbs say so
        starts = record.get(MADE_WITH) or [{}]
        job = starts[-1].get(SLURM_JOB)
        if isinstance(job, str):
            found[job] = run_of(path.parent, is_tuned=COMPLETED in record)
    return found


def run_of(folder: Path, *, is_tuned: bool) -> RunOfJob:
    """Returns how far a run is."""
    names = [path.name for path in (folder / CHECKPOINTS).glob("step=*")]
    steps = [int(match[1]) for match in map(CHECKPOINT.fullmatch, names) if match is not None]
    return RunOfJob(folder, max(steps, default=0), steps_in_all(folder), is_tuned)


def steps_in_all(folder: Path) -> int | None:
    """Returns ``trainer.max_steps`` of a run's configuration; None if it has none."""
    try:
        steps = parse_json((folder / CONFIG_FILE).read_bytes(), folder / CONFIG_FILE)["trainer"]["max_steps"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return steps if isinstance(steps, int) and steps > 0 else None
