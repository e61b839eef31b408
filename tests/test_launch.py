"""A launcher that contradicts the configuration is refused before anything runs twice."""

import pytest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.launch import check_launch

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}
FABRIC = {"LT_CLI_USED": "1", "LT_DEVICES": "2", "LT_NUM_NODES": "2", "LT_STRATEGY": "ddp"}
SLURM = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "train"}


@pytest.mark.parametrize("environment", [{}, TORCHRUN, FABRIC, SLURM, FABRIC | TORCHRUN], ids=str)
def test_what_agrees_passes(environment: dict[str, str]) -> None:
    check_launch(2, 2, environment, {"strategy": "ddp"})


@pytest.mark.parametrize(
    ("environment", "named"), [(TORCHRUN, "LOCAL_WORLD_SIZE"), (FABRIC, "LT_DEVICES"), (SLURM, "SLURM_NTASKS_PER_NODE")]
)
def test_another_number_of_devices_is_refused_in_three_lines(environment: dict[str, str], named: str) -> None:
    with pytest.raises(BadInputError, match=named) as caught:
        check_launch(1, 2, environment)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("environment", "named"), [(TORCHRUN, "WORLD_SIZE"), (FABRIC, "LT_NUM_NODES"), (SLURM, "SLURM_NNODES")]
)
def test_another_number_of_nodes_is_refused(environment: dict[str, str], named: str) -> None:
    with pytest.raises(BadInputError, match=named):
        check_launch(2, 1, environment)


def test_slurm_tasks_without_a_number_per_node_are_counted_too() -> None:
    with pytest.raises(BadInputError, match="SLURM started 4"):
        check_launch(1, 1, {"SLURM_NTASKS": "4"})


@pytest.mark.parametrize("job", ["bash", "interactive"])
def test_slurm_is_ignored_at_a_prompt(job: str) -> None:
    check_launch(1, 1, SLURM | {"SLURM_JOB_NAME": job})


def test_torchrun_inside_a_slurm_job_goes_before_it() -> None:
    check_launch(2, 2, TORCHRUN | {"SLURM_NTASKS": "1", "SLURM_NNODES": "1"})


@pytest.mark.parametrize("devices", ["auto", "-1"])
def test_numbers_that_fabric_leaves_open_are_not_compared(devices: str) -> None:
    check_launch(3, 1, {"LT_CLI_USED": "1", "LT_DEVICES": devices})


def test_a_list_of_devices_is_counted() -> None:
    check_launch(2, 1, {"LT_CLI_USED": "1", "LT_DEVICES": "0,3"})
    with pytest.raises(BadInputError, match="started 2"):
        check_launch(1, 1, {"LT_CLI_USED": "1", "LT_DEVICES": "0,3"})


def test_another_strategy_than_fabric_was_told_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"trainer\.strategy"):
        check_launch(2, 2, FABRIC, {"strategy": "auto"})
