"""What a launch does that is right and still hardly meant: said in a line, where refusing would be wrong."""

import os
from collections.abc import Mapping


def launch_notices(environment: Mapping[str, str], *, device: str, is_chosen: bool, has_srun: bool) -> list[str]:
    """Returns what somebody who starts a training should know about this machine, a line each.

    Args:
        environment: Environment variables.
        device: Kind of the device that is used, as torch names it.
        is_chosen: Whether the configuration names the accelerator.
        has_srun: Whether SLURM's ``srun`` is here.
    """
    notices = []
    reserved, usable = environment.get("SLURM_CPUS_PER_TASK", ""), usable_processors()
    if reserved.isdecimal() and "SLURM_PROCID" in environment and 0 < usable < int(reserved):
        notices.append(
            f"the job has {reserved} processors for each task, and this process may use {usable}: srun does not take "
            "that from the job; srun --cpus-per-task=$SLURM_CPUS_PER_TASK does"
        )
    if device == "cpu" and not is_chosen and has_srun and "SLURM_JOB_ID" not in environment:
        notices.append("no GPU is here, and srun is: if this is a login node, `m2pt slurm submit` trains in a job")
    return notices


def usable_processors() -> int:
    """Returns how many processors this process may run on; 0 where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
