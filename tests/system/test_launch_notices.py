"""What is right about a launch and hardly meant is said in a line."""

import os

import pytest

from lightning_m2pt.system.launch_notices import launch_notices

USABLE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("environment", "device", "is_chosen", "has_srun", "named"),
    [
        ({}, "cpu", False, False, ()),
        ({}, "cpu", False, True, ("m2pt slurm submit",)),
        ({}, "cpu", True, True, ()),
        ({}, "cuda", False, True, ()),
        ({"SLURM_JOB_ID": "1"}, "cpu", False, True, ()),
        ({"SLURM_PROCID": "0", "SLURM_CPUS_PER_TASK": str(USABLE)}, "cuda", False, False, ()),
        ({"SLURM_PROCID": "0", "SLURM_CPUS_PER_TASK": str(USABLE + 1)}, "cuda", False, False, ("--cpus-per-task",)),
        ({"SLURM_CPUS_PER_TASK": str(USABLE + 1)}, "cuda", False, False, ()),
    ],
)
def test_a_notice_is_there_only_where_it_is_due(environment, device, is_chosen, has_srun, named) -> None:
    said = launch_notices(environment, device=device, is_chosen=is_chosen, has_srun=has_srun)
    assert len(said) == len(named)
    for notice, text in zip(said, named, strict=True):
        assert text in notice
        assert "\n" not in notice
