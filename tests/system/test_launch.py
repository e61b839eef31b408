"""A launcher that contradicts the configuration is refused before anything runs twice."""

import pytest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.launch import (
    NUMBERS,
    RANK_VARIABLES,
    check_launch,
    check_node,
    check_variables,
    is_first_process,
)

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


SRUN = SLURM | {"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0", "SLURM_JOB_ID": "123456"}
BY_HAND = {"NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "12345"}


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_only_the_first_process_of_the_first_node_writes_and_talks(name: str) -> None:
    assert is_first_process({})
    assert is_first_process(dict.fromkeys(RANK_VARIABLES, "0"))
    assert not is_first_process({name: "1"})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["", "one", "-1", "1.0", "1e3", " 1", "\u0661"])
def test_a_variable_that_is_no_number_is_named_in_three_lines(name: str, text: str) -> None:
    with pytest.raises(BadInputError, match=name) as caught:
        check_variables({name: text})
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("environment", [{}, SRUN, BY_HAND, SLURM | {"SLURM_JOB_NAME": "interactive"}], ids=str)
def test_variables_of_a_whole_launch_pass(environment: dict[str, str]) -> None:
    check_variables(environment)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"SLURM_NTASKS": "2"}, "srun m2pt"),
        ({"SLURM_NTASKS": "1"}, "SLURM_PROCID is not set"),
        ({name: value for name, value in SRUN.items() if name != "SLURM_NTASKS_PER_NODE"}, "ntasks-per-node"),
        (SRUN | {"SLURM_JOB_ID": "12.batch"}, "SLURM_JOB_ID"),
        ({"MASTER_PORT": "70000"}, "no port"),
        (TORCHRUN, "RANK is not set"),
    ],
    ids=str,
)
def test_half_a_launch_is_refused(environment: dict[str, str], named: str) -> None:
    with pytest.raises(BadInputError, match=named) as caught:
        check_variables(environment)
    assert len(str(caught.value).splitlines()) <= 3


def test_a_node_that_is_started_by_hand_says_which_one_it_is() -> None:
    check_node(2, BY_HAND)
    check_node(2, TORCHRUN)
    check_node(2, SRUN)
    check_node(1, {})
    for name in BY_HAND:
        with pytest.raises(BadInputError, match=name):
            check_node(2, {key: value for key, value in BY_HAND.items() if key != name})
    with pytest.raises(BadInputError, match="node 1, counted from 0, of 1"):
        check_node(1, BY_HAND)


@pytest.mark.parametrize("name", RANK_VARIABLES)
def test_the_number_of_another_process_is_refused_where_there_is_one(name: str) -> None:
    """It would tune, say nothing and write half of its files."""
    check_launch(1, 1, {name: "0"})
    with pytest.raises(BadInputError, match=name):
        check_launch(1, 1, {name: "1"})
    check_launch(2, 1, {name: "1"})
