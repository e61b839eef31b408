"""Which process this is, by the variables of whatever launcher started it, before any process group exists.

Lightning asks torchrun's variables first, then SLURM's, then counts by node and device itself; so does this. A number
that another launcher around it has set (the task in which torchrun was started) says nothing then.
"""

from collections.abc import Mapping

from lightning_m2pt.errors import BadInputError

INTERACTIVE_JOBS = ("bash", "interactive")
"""Names of SLURM jobs in which somebody works at a prompt; Lightning ignores SLURM there."""

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "SLURM_PROCID")
"""Numbers of the launchers that are honoured: all 0 in the first process, and only there."""

OTHER_LAUNCHERS = {
    "OMPI_COMM_WORLD_RANK": ("OMPI_COMM_WORLD_SIZE", "mpirun (Open MPI)"),
    "PMI_RANK": ("PMI_SIZE", "mpiexec (MPICH, Intel MPI)"),
    "MV2_COMM_WORLD_RANK": ("MV2_COMM_WORLD_SIZE", "mpirun (MVAPICH)"),
    "JSM_NAMESPACE_RANK": ("JSM_NAMESPACE_SIZE", "jsrun"),
}
"""Of launchers that Lightning does not ask: a process's number, the number of processes, and who sets them."""


def is_first_process(environment: Mapping[str, str]) -> bool:
    """Tells whether this is the process that writes and talks, before any process group exists.

    Raises:
        BadInputError: If a launcher's variable is no number.
    """
    numbers = {name: whole_number(name, environment) for name in (*RANK_VARIABLES, *OTHER_LAUNCHERS)}
    if is_of_torchrun(environment) and numbers["RANK"] is not None:
        return numbers["RANK"] == 0
    if believes_slurm(environment) and numbers["SLURM_PROCID"] is not None:
        return numbers["SLURM_PROCID"] == 0
    return not any(numbers.values())


def process_name(environment: Mapping[str, str]) -> str:
    """Returns a short name of this process that no other one of the same launch has, as part of a file's name.

    Raises:
        BadInputError: If a launcher's variable is no number.
    """
    if is_of_torchrun(environment) and whole_number("RANK", environment) is not None:
        return environment["RANK"]
    if believes_slurm(environment) and whole_number("SLURM_PROCID", environment) is not None:
        return environment["SLURM_PROCID"]
    node = environment.get("NODE_RANK", environment.get("GROUP_RANK", "0"))
    local = environment.get("LOCAL_RANK", environment.get("RANK", "0"))
    return local if node == "0" else f"{node}-{local}"


def is_of_torchrun(environment: Mapping[str, str]) -> bool:
    """Tells whether Lightning takes its processes from torchrun, which ``fabric run`` and accelerate start, too."""
    return "TORCHELASTIC_RUN_ID" in environment


def believes_slurm(environment: Mapping[str, str]) -> bool:
    """Tells whether Lightning takes its processes from SLURM; torchrun inside a job goes before it."""
    return (
        "SLURM_NTASKS" in environment
        and not is_of_torchrun(environment)
        and environment.get("SLURM_JOB_NAME") not in INTERACTIVE_JOBS
    )


def other_launcher(environment: Mapping[str, str]) -> tuple[str, int] | None:
    """Returns who else has started several processes of this command, and how many.

    To be asked where neither torchrun nor SLURM has: ``srun --mpi=pmi2`` sets MPI's numbers, too.

    Raises:
        BadInputError: If a number is none.
    """
    for size, launcher in OTHER_LAUNCHERS.values():
        if (number := whole_number(size, environment) or 0) > 1:
            return launcher, number
    return None


def started_processes(environment: Mapping[str, str]) -> tuple[str, int]:
    """Returns what started this command, and in how many processes; a job's script is one, whatever it asked for.

    Raises:
        BadInputError: If a number is none.
    """
    if is_of_torchrun(environment):
        return "torchrun", whole_number("WORLD_SIZE", environment) or 1
    if (tasks := whole_number("SLURM_STEP_NUM_TASKS", environment) or 1) > 1:
        return "srun", tasks
    if (other := other_launcher(environment)) is not None:
        return other
    return "a launcher", whole_number("WORLD_SIZE", environment) or 1


def whole_number(name: str, environment: Mapping[str, str]) -> int | None:
    """Returns a launcher's number, or None if it is not there; one that is no number is refused by its name.

    Raises:
        BadInputError: If it is none.
    """
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
