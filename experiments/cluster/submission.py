"""Submitting: a plan and its resources become a script, a job, and a record of it."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from experiments.cluster.planned import Plan
from experiments.cluster.records import BY_ITSELF, Submission, folder_of, forget_stops, write_submission
from experiments.cluster.resources import Resources, check_job_name
from experiments.cluster.script import check_pattern, job_script
from experiments.cluster.slurm_commands import asked, require, submit
from lightning_m2pt.configuration.paths import FOR_CONFIGURATIONS
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.checkout import checkout_or_refuse


@dataclass(frozen=True)
class Draft:
    """A job that can be submitted.

    Attributes:
        plan: What it runs.
        name: What SLURM calls it.
        options: Of sbatch.
        log: Where it writes, with SLURM's patterns.
        script: The script's text.
        output_root: Below which it is recorded, absolute.
    """

    plan: Plan
    name: str
    options: tuple[str, ...]
    log: str
    script: str
    output_root: Path


def draft(
    plan: Plan, resources: Resources, output_root: Path, name: str = "", at_a_time: int = 0, command: Sequence[str] = ()
) -> Draft:
    """Returns the job that a plan and its resources make; nothing is written.

    Args:
        plan: What is run.
        resources: What each job asks for.
        output_root: Below which the job is recorded.
        name: What SLURM calls it; empty takes the plan's.
        at_a_time: Elements of an array that run at once; 0 for as many as there is room for.
        command: The command line, for the script's first line.

    Raises:
        BadInputError: If a name, folder or word cannot stand in a script.
    """
    name = name or plan.name
    check_job_name(name)
    output_root = output_root.absolute()
    folder = folder_of(output_root)
    check_pattern(folder)
    elements = [int(number) for number in plan.words if number != BY_ITSELF]
    log = str(folder / f"{name}-{'%A_%a' if elements else '%j'}.log")
    options = (f"--job-name={name}", *resources.options(log, elements, at_a_time))
    script = job_script(
        " ".join(["m2pt", *command]),
        options,
        plan.words,
        Path.cwd(),
        checkout_or_refuse("m2pt slurm"),
        sys.executable,
        output_root,
        {key: os.environ[key] for key in FOR_CONFIGURATIONS if key in os.environ},
    )
    return Draft(plan, name, options, log, script, output_root)


def submitted(job: Draft) -> Submission:
    """Submits a job and records it.

    Raises:
        EnvironmentFailure: If SLURM does not take it, or it cannot be recorded: then it is cancelled.
    """
    require("sbatch")
    folder = folder_of(job.output_root)
    folder.mkdir(parents=True, exist_ok=True)  # SLURM makes no folder for a log
    now = datetime.now(UTC)
    script = folder / f"{job.name}-{now:%Y%m%d-%H%M%S}-{os.getpid()}.sbatch"
    write_atomically(script, job.script.encode())
    number = submit(job.options, str(script))
    submission = Submission(
        number,
        job.name,
        next(iter(job.plan.words.values()))[0],
        now.isoformat(timespec="seconds"),
        str(job.plan.output_root),
        str(script),
        job.log,
        job.plan.tunes,
        dict(job.plan.labels),
    )
    try:
        forget_stops(folder, submission.elements)
        write_submission(folder, submission)
    except BaseException:  # nobody would find it again
        asked(["scancel", number])
        raise
    return submission
