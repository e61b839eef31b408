"""A launcher that contradicts the configuration is refused before anything runs twice."""

import pytest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.launch import NUMBERS, check_alone, check_first, check_launch, check_node, check_variables
from lightning_m2pt.system.ranks import OTHER_LAUNCHERS, RANK_VARIABLES, is_first_process, started_processes

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


@pytest.mark.parametrize("name", ["accelerator", "precision"])
def test_other_settings_that_fabric_was_told_are_compared_too(name: str) -> None:
    told = FABRIC | {f"LT_{name.upper()}": "a"}
    check_launch(2, 2, told, {name: "a"})
    with pytest.raises(BadInputError, match=rf"trainer\.{name}"):
        check_launch(2, 2, told, {name: "b"})


SRUN = SLURM | {
    **{"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0", "SLURM_JOB_ID": "123456"},
    **{"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"},
}
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


JOB_SCRIPT = {name: value for name, value in SRUN.items() if not name.startswith("SLURM_STEP")} | {"SLURM_PROCID": "0"}
"""As SLURM 22.05 gives them to what a job's script starts without srun."""

MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}


@pytest.mark.parametrize(
    "environment",
    [
        *({}, SRUN, BY_HAND, SLURM | {"SLURM_JOB_NAME": "interactive"}, JOB_SCRIPT | {"SLURM_NTASKS": "1"}),
        SRUN | MPI,  # srun --mpi sets them, too
        SRUN | {"SLURM_JOB_NAME": "bash"} | BY_HAND,
        {"ACCELERATE_USE_FSDP": "false"},
        JOB_SCRIPT | TORCHRUN | {"RANK": "0", "LOCAL_RANK": "0"},  # torchrun in a job's script of several tasks
    ],
    ids=str,
)
def test_variables_of_a_whole_launch_pass(environment: dict[str, str]) -> None:
    check_variables(environment)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"SLURM_NTASKS": "2"}, "srun m2pt"),
        ({"SLURM_NTASKS": "1"}, "SLURM_PROCID is not set"),
        ({name: value for name, value in SRUN.items() if name != "SLURM_NTASKS_PER_NODE"}, "ntasks-per-node"),
        (SRUN | {"SLURM_JOB_ID": "12.batch"}, "SLURM_JOB_ID"),
        (JOB_SCRIPT, "this is its script"),
        (SRUN | {"SLURM_JOB_NAME": "interactive"}, "srun --job-name"),
        (SRUN | {"SLURM_JOB_NAME": "bash"}, "SLURM_JOB_NAME"),
        (MPI, "Open MPI"),
        ({"PMI_SIZE": "3", "PMI_RANK": "0"}, "started 3 processes"),
        ({"ACCELERATE_USE_FSDP": "true"}, "ACCELERATE_USE_FSDP"),
        (TORCHRUN | {"RANK": "0", "LOCAL_RANK": "0", "ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"),
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


def test_the_launcher_that_numbers_the_processes_is_asked_and_no_other() -> None:
    """Nodes of torchrun need not be counted as the tasks in which it was started."""
    in_task = SRUN | TORCHRUN | {"LOCAL_RANK": "0", "GROUP_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
    assert is_first_process(in_task | {"RANK": "0", "SLURM_PROCID": "1"})
    assert not is_first_process(in_task | {"RANK": "1", "SLURM_PROCID": "0"})
    assert is_first_process(SRUN | {"SLURM_PROCID": "0", "LOCAL_RANK": "1"})
    check_launch(1, 1, in_task | {"RANK": "0", "WORLD_SIZE": "1", "SLURM_PROCID": "1", "NODE_RANK": "1"})


LOCAL = {"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "12345"}
"""As Lightning starts its second process."""


@pytest.mark.parametrize(
    "environment",
    [
        *(
            LOCAL,
            LOCAL | {"RANK": "1"},
            {},
            {"SLURM_JOB_NAME": "bash", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "1"},
        ),
        {"ACCELERATE_MIXED_PRECISION": "no"},
    ],
    ids=str,
)
def test_processes_that_lightning_numbers_itself_pass(environment: dict[str, str]) -> None:
    check_launch(2, 1, environment, {"precision": "32-true"})


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        (LOCAL | {"WORLD_SIZE": "4"}, "WORLD_SIZE"),
        (LOCAL | {"LOCAL_RANK": "2"}, "of 2"),
        (LOCAL | {"RANK": "0"}, "Lightning as 1"),
        ({"SLURM_PROCID": "1"}, "SLURM_PROCID"),
        (LOCAL | {"LOCAL_RANK": "0", "SLURM_PROCID": "1"}, "SLURM_PROCID"),
        ({"LOCAL_RANK": "0"}, "MASTER_PORT"),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1"}, "LOCAL_RANK is not"),
        (SRUN | {"SLURM_JOB_NAME": "bash", "NODE_RANK": "0"}, "srun started 4"),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "accelerate launch was told bf16"),
    ],
    ids=str,
)
def test_processes_that_would_wait_or_train_alone_are_refused(environment: dict[str, str], named: str) -> None:
    with pytest.raises(BadInputError, match=named) as caught:
        check_launch(2, 1, environment, {"precision": "32-true"})
    assert len(str(caught.value).splitlines()) <= 3


def test_processes_are_counted_node_after_node() -> None:
    last = LOCAL | {"NODE_RANK": "1", "WORLD_SIZE": "6", "LOCAL_RANK": "2"}
    check_launch(3, 2, last | {"RANK": "5"})
    with pytest.raises(BadInputError, match="Lightning as 5"):
        check_launch(3, 2, last | {"RANK": "3"})


def test_accelerates_precisions_have_lightnings_names() -> None:
    for told, meant in (("bf16", "bf16-mixed"), ("fp16", "16-mixed")):
        check_launch(1, 1, {"ACCELERATE_MIXED_PRECISION": told}, {"precision": meant})
    with pytest.raises(BadInputError, match="was told fp16"):
        check_launch(1, 1, {"ACCELERATE_MIXED_PRECISION": "fp16"}, {"precision": "bf16-mixed"})


def test_what_needs_one_process_is_done_by_the_first() -> None:
    assert check_first("report", {})
    assert check_first("report", JOB_SCRIPT)  # a job's script is one process
    for several in (TORCHRUN | {"LOCAL_RANK": "0"}, SRUN, LOCAL, MPI, SRUN | {"SLURM_JOB_NAME": "interactive"}):
        number = next(name for name in ("LOCAL_RANK", "SLURM_PROCID", *OTHER_LAUNCHERS) if name in several)
        number = "RANK" if "TORCHELASTIC_RUN_ID" in several else number
        assert not check_first("report", several | {number: "1"})
        assert check_first("report", several | {number: "0"})
    with pytest.raises(BadInputError, match="RANK"):
        check_first("report", {"RANK": "1"})  # left over: it would say nothing


@pytest.mark.parametrize("environment", [TORCHRUN, SRUN, LOCAL, MPI], ids=str)
def test_what_starts_commands_of_its_own_is_one_process(environment: dict[str, str]) -> None:
    assert started_processes(environment)[1] > 1
    for number in ("0", "1"):
        with pytest.raises(BadInputError, match="m2pt sweep"):
            check_alone("sweep", environment | {"RANK": number})
    check_alone("sweep", JOB_SCRIPT)
    check_alone("sweep", {})
