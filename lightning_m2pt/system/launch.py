"""Compares what a launcher started with what the configuration asks for.

A Trainer ignores what ``fabric run``, mpirun and accelerate are told, and believes SLURM and torchrun only where its
own numbers agree. Otherwise every process trains alone, takes itself for the first, and all write over each other
without an error.
"""

from collections.abc import Mapping

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.ranks import (
    INTERACTIVE_JOBS,
    OTHER_LAUNCHERS,
    RANK_VARIABLES,
    believes_slurm,
    is_first_process,
    is_of_torchrun,
    other_launcher,
    started_processes,
    whole_number,
)

FABRIC_SETTINGS = ("accelerator", "strategy", "precision")

NUMBERS = (
    *RANK_VARIABLES,
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT", "STANDALONE_PORT"),
    *("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_NNODES", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_NUM_TASKS"),
    *OTHER_LAUNCHERS,
    *(size for size, _ in OTHER_LAUNCHERS.values()),
)
"""Variables that Lightning or this module turns into numbers as they are."""

STARTED_BY_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
STARTED_BY_SRUN = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
STEP = ("SLURM_STEP_ID", "SLURM_STEPID")
"""Set in what srun starts, and not in a job's script, which has the numbers of task 0 all the same."""
BY_HAND = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
HIGHEST_PORT = 65535
PLANS_OF_ACCELERATE = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}
"""What transformers reads while it loads weights: it would leave those of all ranks but one empty."""
PRECISIONS_OF_ACCELERATE = {"bf16": "bf16-mixed", "fp16": "16-mixed"}

Counts = list[tuple[str, str, int]]
"""Environment variable, the Trainer setting it is compared with, and the number it has to be."""


def check_ranks(environment: Mapping[str, str]) -> None:
    """Looks at the numbers that libraries read while they are imported.

    Raises:
        BadInputError: If one is no number.
    """
    is_first_process(environment)


def check_variables(environment: Mapping[str, str]) -> None:
    """Looks for what a Trainer would stumble over while it is made, or would not see.

    Raises:
        BadInputError: If a launcher's variable is no number, the variables are those of half a launch, or a launcher
            that Lightning does not ask has started several processes.
    """
    for name in NUMBERS:
        whole_number(name, environment)
    for name in ("MASTER_PORT", "STANDALONE_PORT"):
        if (whole_number(name, environment) or 0) > HIGHEST_PORT:
            raise BadInputError(
                f"{environment[name]} is no port", where=name, expected=f"a number up to {HIGHEST_PORT}"
            )
    missing = [name for name in STARTED_BY_TORCHRUN if name not in environment]
    if is_of_torchrun(environment) and missing:
        raise BadInputError(
            f"torchrun's variables are half there: {missing[0]} is not set",
            where="TORCHELASTIC_RUN_ID",
            expected="all of them, as torchrun sets them",
            hint="unset TORCHELASTIC_RUN_ID if torchrun did not start this command",
        )
    _refuse_plans_of_accelerate(environment)
    if believes_slurm(environment):
        _check_slurm(environment)
    elif not is_of_torchrun(environment):
        _refuse_unseen_processes(environment)


def _check_slurm(environment: Mapping[str, str]) -> None:
    """Looks whether SLURM's variables are those of a task that srun has started."""
    tasks, job = environment["SLURM_NTASKS"], environment.get("SLURM_JOB_ID", "0")
    missing = [name for name in STARTED_BY_SRUN if name not in environment]
    if missing:
        raise BadInputError(
            f"SLURM has {tasks} tasks here, and this process is none of them: {missing[0]} is not set",
            where="SLURM_NTASKS",
            expected="a command started by srun, as in `srun m2pt fit ...`",
            hint="SLURM_JOB_NAME=interactive m2pt ... runs one process at this prompt",
        )
    if int(tasks) > 1 and not any(name in environment for name in STEP):
        raise BadInputError(
            f"the job has {tasks} tasks, and this is its script: the first would wait for others that nobody starts",
            where="SLURM_NTASKS",
            expected="a command started by srun, as in `srun m2pt fit ...`",
            hint="SLURM_JOB_NAME=interactive m2pt ... runs one process, or starts its own on this node",
        )
    if int(tasks) > 1 and "SLURM_NTASKS_PER_NODE" not in environment:
        raise BadInputError(
            f"SLURM started {tasks} tasks, and does not say how many on each node",
            where="SLURM_NTASKS_PER_NODE",
            expected="srun --ntasks-per-node N, or that line in the job script, with N of trainer.devices",
        )
    if not job[-4:].isdecimal():
        raise BadInputError(f"{job!r:.40} is no job's number", where="SLURM_JOB_ID", expected="a whole number")


def _refuse_unseen_processes(environment: Mapping[str, str]) -> None:
    """Refuses several processes that Lightning would not see: each would be the first one."""
    if (other := other_launcher(environment)) is not None:
        raise BadInputError(
            f"{other[0]} started {other[1]} processes, and Lightning does not ask it: each would be the first",
            where="trainer",
            expected="torchrun, srun, or no launcher and --trainer.devices",
            hint=f'torchrun --nproc-per-node {other[1]} "$(command -v m2pt)" fit ... starts as many on one node',
        )
    tasks = whole_number("SLURM_STEP_NUM_TASKS", environment) or 1
    if tasks > 1 and "NODE_RANK" not in environment and "LOCAL_RANK" not in environment:
        raise BadInputError(
            f"srun started {tasks} tasks, and of a job called {environment.get('SLURM_JOB_NAME')!r:.40} Lightning asks "
            "nothing: each would be the first",
            where="SLURM_JOB_NAME",
            expected=f"any name but {' and '.join(INTERACTIVE_JOBS)}, which mean that somebody works at a prompt",
            hint="srun --job-name train ... names this step only",
        )


def _refuse_plans_of_accelerate(environment: Mapping[str, str]) -> None:
    """Refuses what accelerate was told about the training itself, which is the configuration's business."""
    for name, plan in PLANS_OF_ACCELERATE.items():
        if environment.get(name, "").lower() in ("1", "true", "yes", "y", "t", "on"):
            raise BadInputError(
                f"accelerate was told to use {plan}; weights would be loaded on one rank only",
                where=name,
                expected="accelerate launch without it: it starts the processes, and trainer.strategy says the rest",
                hint="experiments/strategies has a file for each strategy",
            )


def check_node(num_nodes: int, environment: Mapping[str, str]) -> None:
    """Looks for what a node started by hand has to be told, where no launcher numbers the nodes.

    Args:
        num_nodes: Nodes, as the Trainer is configured.
        environment: Environment variables.

    Raises:
        BadInputError: If this node has no number, the number of another set of nodes, or no address of the first.
    """
    if is_of_torchrun(environment) or believes_slurm(environment):
        return
    missing = [name for name in BY_HAND if name not in environment]
    if num_nodes > 1 and missing:
        raise BadInputError(
            f"{num_nodes} nodes, and {' and '.join(missing)} not set: each would take itself for the first",
            where="trainer.num_nodes",
            expected="NODE_RANK (0, 1, ...), MASTER_ADDR and MASTER_PORT of the first node, on every node",
            hint="torchrun and srun set all that themselves",
        )
    for name in ("NODE_RANK", "GROUP_RANK"):
        if (whole_number(name, environment) or 0) >= num_nodes:
            raise BadInputError(
                f"this is node {environment[name]}, counted from 0, of {num_nodes}",
                where=name,
                expected=f"less than trainer.num_nodes, which is {num_nodes}",
                hint=f"unset {name} if nothing but this command runs",
            )


def check_launch(
    devices: int, num_nodes: int, environment: Mapping[str, str], settings: Mapping[str, str] | None = None
) -> None:
    """Refuses to start when a launcher contradicts the configuration.

    Args:
        devices: Devices per node, as the Trainer is configured.
        num_nodes: Nodes, likewise.
        environment: Environment variables.
        settings: ``accelerator``, ``strategy`` and ``precision`` as configured, for what ``fabric run`` says about
            them; the ones left out are not compared.

    Raises:
        BadInputError: If torchrun, ``fabric run`` or SLURM started another number of processes, or ``fabric run`` was
            told another setting.
    """
    processes = devices * num_nodes
    _compare_precision(settings or {}, environment)
    if environment.get("LT_CLI_USED"):
        counts: Counts = [("LT_DEVICES", "devices", devices), ("LT_NUM_NODES", "num_nodes", num_nodes)]
        _compare("fabric run", counts, environment)
        _compare_settings(settings or {}, environment)
    if is_of_torchrun(environment):
        counts = [("LOCAL_WORLD_SIZE", "devices", devices), ("WORLD_SIZE", "devices x num_nodes", processes)]
        _compare("torchrun", counts, environment)
        return  # it numbers the processes, whatever else is set
    if believes_slurm(environment):
        counts = [
            ("SLURM_NTASKS_PER_NODE", "devices", devices),
            ("SLURM_NNODES", "num_nodes", num_nodes),
            ("SLURM_NTASKS", "devices x num_nodes", processes),
        ]
        _compare("SLURM", counts, environment)
    else:
        _check_by_hand(devices, num_nodes, environment)
    if processes == 1:
        _refuse_left_over_ranks(environment)


def check_alone(verb: str, environment: Mapping[str, str]) -> None:
    """Refuses several processes of a verb that starts commands of its own: those would take themselves for ranks.

    Raises:
        BadInputError: If a launcher has started more than one.
    """
    launcher, processes = started_processes(environment)
    if processes > 1:
        raise BadInputError(
            f"{launcher} started {processes} processes of a command that starts others itself",
            where=f"m2pt {verb}",
            expected="one process",
            hint="give the command without a launcher; a job array runs the cells of a sweep on several machines",
        )


def check_first(verb: str, environment: Mapping[str, str]) -> bool:
    """Tells whether this process does what a verb does that needs only one: the others have nothing to do.

    Raises:
        BadInputError: If this is the number of another process, and nothing has started several.
    """
    launcher, processes = started_processes(environment)
    if is_first_process(environment):
        return True
    if processes > 1:
        return False
    number = next(name for name in (*RANK_VARIABLES, *OTHER_LAUNCHERS) if whole_number(name, environment))
    raise BadInputError(
        f"this is process {environment[number]}, counted from 0, and {launcher} has started one",
        where=number,
        expected=f"0, or no such environment variable, for `m2pt {verb}`",
        hint=f"unset {number}",
    )


def _check_by_hand(devices: int, num_nodes: int, environment: Mapping[str, str]) -> None:
    """Looks at processes that Lightning numbers by node and device itself: its own, or started by hand."""
    processes = devices * num_nodes
    _compare("a launcher", [("WORLD_SIZE", "devices x num_nodes", processes)], environment)
    tasks = whole_number("SLURM_STEP_NUM_TASKS", environment) or 1
    if tasks > 1 and tasks not in (num_nodes, processes):
        _compare("srun", [("SLURM_STEP_NUM_TASKS", "num_nodes", num_nodes)], environment)
    if processes == 1:
        return
    local, rank = whole_number("LOCAL_RANK", environment), whole_number("RANK", environment)
    if local is None and rank is not None:
        raise BadInputError(
            "RANK is set, and LOCAL_RANK is not: Lightning would start processes of its own beside the launcher's",
            where="RANK",
            expected="torchrun's variables, SLURM's, or NODE_RANK for each node",
            hint="unset RANK if no launcher started this command",
        )
    if (local or 0) >= devices:
        raise BadInputError(
            f"this is process {local} of a node, counted from 0, of {devices}",
            where="LOCAL_RANK",
            expected=f"less than trainer.devices, which is {devices}",
        )
    if local is not None and "MASTER_PORT" not in environment:
        raise BadInputError(
            "LOCAL_RANK is set, so Lightning starts no process, and where they meet is not said",
            where="MASTER_PORT",
            expected="MASTER_ADDR and MASTER_PORT, the same in all processes",
            hint="unset LOCAL_RANK, and this command starts the others itself",
        )
    node = whole_number("NODE_RANK" if "NODE_RANK" in environment else "GROUP_RANK", environment) or 0
    counted = node * devices + (local or 0)
    if rank is not None and rank != counted:
        raise BadInputError(
            f"the launcher counts this as process {rank}, Lightning as {counted}",
            where="RANK",
            expected="NODE_RANK x trainer.devices + LOCAL_RANK",
        )
    if counted == 0:
        _refuse_left_over_ranks(environment)


def _refuse_left_over_ranks(environment: Mapping[str, str]) -> None:
    """Refuses the number of another process in what Lightning takes for the first: it would write and say nothing."""
    for name in RANK_VARIABLES:
        if whole_number(name, environment):
            raise BadInputError(
                f"this is process {environment[name]}, counted from 0, and the first by the configuration",
                where=name,
                expected="0, or no such environment variable",
                hint=f"unset {name}, or set trainer.devices and trainer.num_nodes to what the launcher starts",
            )


def _compare(launcher: str, counts: Counts, environment: Mapping[str, str]) -> None:
    for variable, setting, configured in counts:
        started = _number(environment.get(variable, ""))
        if started is not None and started != configured:
            raise BadInputError(
                f"{launcher} started {started} ({variable}), the configuration says {configured}",
                where=f"trainer: {setting}",
                expected="the same number; otherwise each process would train alone as the first one",
                hint=f"set trainer.devices and trainer.num_nodes to it; unset {variable} if nothing started this",
            )


def _compare_settings(settings: Mapping[str, str], environment: Mapping[str, str]) -> None:
    for name in FABRIC_SETTINGS:
        told = environment.get(f"LT_{name.upper()}")
        if told is not None and name in settings and told != settings[name]:
            raise BadInputError(
                f"fabric run was told {told}, the configuration says {settings[name]}",
                where=f"trainer.{name}",
                expected="the same, because the configuration's is used",
                hint=f"leave it out of fabric run, or give --trainer.{name} {told}",
            )


def _compare_precision(settings: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """Compares the precision that accelerate was told, which only a Trainer of its own would take."""
    told = environment.get("ACCELERATE_MIXED_PRECISION", "no")
    meant = PRECISIONS_OF_ACCELERATE.get(told, told)
    configured = settings.get("precision", "32-true")
    if meant != "no" and configured not in (meant, meant.removesuffix("-mixed")):
        raise BadInputError(
            f"accelerate launch was told {told}, the configuration says {configured}",
            where="trainer.precision",
            expected="the same, because the configuration's is used",
            hint="accelerate launch --mixed_precision no leaves it to the configuration",
        )


def _number(text: str) -> int | None:
    """Returns a count of processes; None if the text leaves it open (``auto``, ``-1``), as fabric's may."""
    if "," in text:
        return len([device for device in text.split(",") if device])
    return int(text) if text.isdecimal() else None
