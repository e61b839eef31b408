"""Compares what a launcher started with what the configuration asks for.

A Trainer ignores what ``fabric run`` is told, and believes SLURM and torchrun only where its own numbers agree.
Otherwise every process trains alone, takes itself for the first, and all write over each other without an error.
"""

from collections.abc import Mapping

from lightning_m2pt.errors import BadInputError

INTERACTIVE_JOBS = ("bash", "interactive")
"""Names of SLURM jobs in which somebody works at a prompt; Lightning ignores SLURM there, too."""

FABRIC_SETTINGS = ("accelerator", "strategy", "precision")

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "SLURM_PROCID")
"""Whichever launcher set them: they are all 0 in the first process, and only there."""

NUMBERS = (
    *RANK_VARIABLES,
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT", "STANDALONE_PORT"),
    *("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_NNODES", "SLURM_LOCALID", "SLURM_NODEID"),
)
"""Variables that Lightning turns into numbers as they are."""

STARTED_BY_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
STARTED_BY_SRUN = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
BY_HAND = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
HIGHEST_PORT = 65535

Counts = list[tuple[str, str, int]]
"""Environment variable, the Trainer setting it is compared with, and the number it has to be."""


def is_first_process(environment: Mapping[str, str]) -> bool:
    """Tells whether this is the process that writes and talks, before any process group exists.

    Raises:
        BadInputError: If a launcher's variable is no number.
    """
    return not any([_whole_number(name, environment) for name in RANK_VARIABLES])


def check_ranks(environment: Mapping[str, str]) -> None:
    """Looks at the numbers that libraries read while they are imported.

    Raises:
        BadInputError: If one is no number.
    """
    is_first_process(environment)


def check_variables(environment: Mapping[str, str]) -> None:
    """Looks for what a Trainer would stumble over while it is made.

    Raises:
        BadInputError: If a launcher's variable is no number, or SLURM gave this shell tasks that nobody started.
    """
    for name in NUMBERS:
        _whole_number(name, environment)
    for name in ("MASTER_PORT", "STANDALONE_PORT"):
        if (_whole_number(name, environment) or 0) > HIGHEST_PORT:
            raise BadInputError(
                f"{environment[name]} is no port", where=name, expected=f"a number up to {HIGHEST_PORT}"
            )
    missing = [name for name in STARTED_BY_TORCHRUN if name not in environment]
    if "TORCHELASTIC_RUN_ID" in environment and missing:
        raise BadInputError(
            f"torchrun's variables are half there: {missing[0]} is not set",
            where="TORCHELASTIC_RUN_ID",
            expected="all of them, as torchrun sets them",
            hint="unset TORCHELASTIC_RUN_ID if torchrun did not start this command",
        )
    if not _believes_slurm(environment):
        return
    tasks, job = environment["SLURM_NTASKS"], environment.get("SLURM_JOB_ID", "0")
    missing = [name for name in STARTED_BY_SRUN if name not in environment]
    if missing:
        raise BadInputError(
            f"SLURM has {tasks} tasks here, and this process is none of them: {missing[0]} is not set",
            where="SLURM_NTASKS",
            expected="a command started by srun, as in `srun m2pt fit ...`",
            hint="SLURM_JOB_NAME=interactive m2pt ... runs one process at this prompt",
        )
    if int(tasks) > 1 and "SLURM_NTASKS_PER_NODE" not in environment:
        raise BadInputError(
            f"SLURM started {tasks} tasks, and does not say how many on each node",
            where="SLURM_NTASKS_PER_NODE",
            expected="--ntasks-per-node in the job script, the same as trainer.devices",
        )
    if not job[-4:].isdecimal():
        raise BadInputError(f"{job!r:.40} is no job's number", where="SLURM_JOB_ID", expected="a whole number")


def check_node(num_nodes: int, environment: Mapping[str, str]) -> None:
    """Looks for what a node started by hand has to be told, where no launcher numbers the nodes.

    Args:
        num_nodes: Nodes, as the Trainer is configured.
        environment: Environment variables.

    Raises:
        BadInputError: If this node has no number, the number of another set of nodes, or no address of the first.
    """
    if "TORCHELASTIC_RUN_ID" in environment or _believes_slurm(environment):
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
        if (_whole_number(name, environment) or 0) >= num_nodes:
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
    if environment.get("LT_CLI_USED"):
        counts: Counts = [("LT_DEVICES", "devices", devices), ("LT_NUM_NODES", "num_nodes", num_nodes)]
        _compare("fabric run", counts, environment)
        _compare_settings(settings or {}, environment)
    if "TORCHELASTIC_RUN_ID" in environment:
        counts = [("LOCAL_WORLD_SIZE", "devices", devices), ("WORLD_SIZE", "devices x num_nodes", processes)]
        _compare("torchrun", counts, environment)
    elif _believes_slurm(environment):
        counts = [
            ("SLURM_NTASKS_PER_NODE", "devices", devices),
            ("SLURM_NNODES", "num_nodes", num_nodes),
            ("SLURM_NTASKS", "devices x num_nodes", processes),
        ]
        _compare("SLURM", counts, environment)
    if processes == 1:
        _refuse_left_over_ranks(environment)


def _refuse_left_over_ranks(environment: Mapping[str, str]) -> None:
    """Refuses the number of another process where there is one process: it would write and say nothing."""
    for name in RANK_VARIABLES:
        if _whole_number(name, environment):
            raise BadInputError(
                f"this is process {environment[name]}, counted from 0, and the configuration has one",
                where=name,
                expected="0, or no such environment variable",
                hint=f"unset {name}, or set trainer.devices and trainer.num_nodes to what the launcher starts",
            )


def _believes_slurm(environment: Mapping[str, str]) -> bool:
    """Tells whether Lightning takes its processes from SLURM; torchrun inside a job goes before it."""
    return (
        "SLURM_NTASKS" in environment
        and "TORCHELASTIC_RUN_ID" not in environment
        and environment.get("SLURM_JOB_NAME") not in INTERACTIVE_JOBS
    )


def _whole_number(name: str, environment: Mapping[str, str]) -> int | None:
    """Returns a launcher's number, or None if it is not there; one that is no number is refused by its name."""
    text = environment.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise BadInputError(
            f"{text!r:.40} is no number of a process, node or port",
            where=name,
            expected="a whole number, 0 or more, in this environment variable",
            hint=f"unset {name} if no launcher started this command",
        )
    return int(text)


def _compare(launcher: str, counts: Counts, environment: Mapping[str, str]) -> None:
    for variable, setting, configured in counts:
        started = _number(environment.get(variable, ""))
        if started is not None and started != configured:
            raise BadInputError(
                f"{launcher} started {started} ({variable}), the configuration says {configured}",
                where=f"trainer: {setting}",
                expected="the same number; otherwise each process would train alone as the first one",
                hint="set trainer.devices and trainer.num_nodes to what the launcher starts",
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


def _number(text: str) -> int | None:
    """Returns a count of processes; None if the text leaves it open (``auto``, ``-1``), as fabric's may."""
    if "," in text:
        return len([device for device in text.split(",") if device])
    return int(text) if text.isdecimal() else None
