"""Which SLURM job this process belongs to."""

from collections.abc import Mapping

STOPPED_AND_SAVED = (138, 143)
"""Exit codes of a verb that SIGUSR1 (SLURM's warning) or SIGTERM (preemption) has ended: what it did is kept."""


def slurm_job_of(environment: Mapping[str, str]) -> str | None:
    """Returns the job as SLURM's commands take it: ``12``, or ``12_3`` for an array's element; None outside of a job.

    Not SLURM_JOB_ID for an element: one of an array's elements has the number of the array itself, and a command that
    is given it means all of them.

    Args:
        environment: Environment variables.
    """
    array, element = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{element}" if array and element else environment.get("SLURM_JOB_ID")
