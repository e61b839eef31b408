"""What a job does when ``m2pt`` has ended in it: back into the queue, or not.

One place for the time limit and for preemption. SLURM warns (SIGUSR1), or asks (SIGTERM); ``m2pt`` saves at the end of
its step and ends with 138 or 143; the job is put back once, and the same command goes on from the checkpoint.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from experiments.cluster.records import (
    Stops,
    Submission,
    folder_of,
    forget_stops,
    read_stops,
    read_submission,
    write_stops,
)
from experiments.cluster.runs import RunOfJob, runs_by_job
from experiments.cluster.slurm_commands import asked
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.slurm_job import STOPPED_AND_SAVED, slurm_job_of

MOST_RESTARTS = 20
"""A job that is preempted all the time, or never gets to its end, is given back to a person."""
MOST_WITHOUT_A_RUN = 3
"""The job may be one that only answers with a run which another job has tuned; so not at the second stop already."""
WITHOUT_A_RUN = [None] * MOST_WITHOUT_A_RUN
RESTARTS = "SLURM_RESTART_COUNT"


def after(code: int, output_root: Path, environment: Mapping[str, str]) -> str:
    """Puts a job that was stopped back into the queue, or notes how it ended; returns what to say.

    Args:
        code: What ``m2pt`` ended with.
        output_root: Where the job's submission is recorded, if it is.
        environment: Environment variables, of the job's script.

    Raises:
        BadInputError: If this is no job of SLURM's.
        EnvironmentFailure: If SLURM does not take the job back.
    """
    job, restarts = slurm_job_of(environment), environment.get(RESTARTS, "0")
    if job is None or not restarts.isdecimal():
        raise BadInputError(
            "this is no job of SLURM's",
            where="m2pt slurm after",
            expected="a job's script, which calls it",
            hint="`m2pt slurm submit` writes such scripts",
        )
    folder = folder_of(output_root)
    if restarts == "0":
        forget_stops(folder, [job])
    stops = read_stops(folder, job)
    if code not in STOPPED_AND_SAVED:
        write_stops(folder, replace(stops, ended=code))
        return ""
    submission = read_submission(folder, job.partition("_")[0])
    run = runs_by_job(Path(submission.output_root) if submission else output_root).get(job)
    reason = reason_to_stop(stops, submission, run, int(restarts))
    if reason:
        write_stops(folder, replace(stops, ended=code, reason=reason))
        return f"job {job} is not put back into the queue: {reason}; the same command, submitted again, goes on"
    # Before SLURM is asked: it ends this process as soon as it has put the job back.
    write_stops(folder, replace(stops, steps=[*stops.steps, run.step if run else None]))
    asked(["scontrol", "requeue", job])
    return f"job {job} is back in the queue"


def reason_to_stop(stops: Stops, submission: Submission | None, run: RunOfJob | None, restarts: int) -> str:
    """Returns why a stopped job is not put back; empty if it is.

    While it tunes, the checkpoint tells whether it gets on; while it answers, there is only the number of restarts.

    Args:
        stops: The stops before this one.
        submission: The job's submission; None if it was submitted by hand.
        run: The run it works in; None if none has begun.
        restarts: How often SLURM has started it again, for whatever reason.
    """
    if max(restarts, len(stops.steps)) >= MOST_RESTARTS:
        return f"it was restarted {MOST_RESTARTS} times"
    if not stops.steps:
        return ""
    if run is not None and not run.is_tuned and stops.steps[-1] == run.step:
        return f"it has not got beyond step {run.step} since the stop before"
    if submission is not None and submission.tunes and [*stops.steps, run][-MOST_WITHOUT_A_RUN:] == WITHOUT_A_RUN:
        return f"it was stopped {MOST_WITHOUT_A_RUN} times and has begun no run; a longer time limit helps"
    return ""
