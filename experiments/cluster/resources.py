"""What a job asks SLURM for, checked before anything is submitted."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.launch import INTERACTIVE_JOBS

SECONDS_TO_START = 60
"""SLURM may warn a job up to a minute early."""
TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
GPUS = re.compile(r"(?:[A-Za-z][\w.-]*:)?(\d+)")
MEMORY = re.compile(r"\d+[KMGT]?")
JOB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
PLAIN = re.compile(r"[\w.,:/@+=&|*()\[\]!-]+", re.ASCII)
"""Values that need no quotes in an ``#SBATCH`` line."""
OWN_OPTIONS = (
    *(
        "job-name",
        "nodes",
        "ntasks",
        "ntasks-per-node",
        "tasks-per-node",
        "gpus",
        "gpus-per-node",
        "gpus-per-task",
        "gres",
    ),
    *("cpus-per-task", "time", "signal", "requeue", "no-requeue", "open-mode", "output", "error", "array", "chdir"),
    *("partition", "account", "qos", "constraint", "mem", "wrap", "parsable", "test-only", "wait", "export"),
)
"""Options of sbatch that have a flag of their own here, or that the submission itself depends on."""


@dataclass(frozen=True)
class Resources:
    """What every job, or every element of an array, asks for.

    Attributes:
        nodes: Nodes.
        tasks_per_node: Processes a node.
        gpus_per_node: Such as ``4`` or ``a100:4``; empty asks for none.
        cpus_per_task: Cores of each process.
        time: Time limit in one of SLURM's forms.
        signal_seconds: How long before the limit SLURM warns.
        partition: And the next ones: as sbatch takes them; empty leaves the choice to the cluster.
        account: See above.
        qos: See above.
        constraint: See above.
        mem: Memory a node, such as ``64G``.
        more: Further options of sbatch, such as ``--reservation=course``.
    """

    nodes: int
    tasks_per_node: int
    gpus_per_node: str
    cpus_per_task: int
    time: str
    signal_seconds: int
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    mem: str = ""
    more: tuple[str, ...] = ()

    @property
    def processes(self) -> int:
        """Processes on all nodes."""
        return self.nodes * self.tasks_per_node

    def check(self) -> None:
        """Looks at every value.

        Raises:
            BadInputError: Naming the first flag that is wrong.
        """
        for flag, number in (
            ("--nodes", self.nodes),
            ("--tasks-per-node", self.tasks_per_node),
            ("--cpus-per-task", self.cpus_per_task),
        ):
            if number < 1:
                raise bad(flag, f"{number} is less than 1", "1 or more")
        gpus = gpus_in(self.gpus_per_node)
        if gpus and gpus != self.tasks_per_node:
            raise bad(
                "--tasks-per-node",
                f"{self.tasks_per_node} processes a node and {gpus} GPUs",
                "one process for every GPU",
            )
        if self.mem and not MEMORY.fullmatch(self.mem):
            raise bad("--mem", f"{self.mem!r:.40} is no size", "a number with K, M, G or T, such as 64G")
        if self.signal_seconds < 1:
            raise bad("--signal-seconds", f"{self.signal_seconds} is less than 1", "1 or more")
        if seconds_of(self.time) <= self.signal_seconds + SECONDS_TO_START:
            raise bad(
                "--time",
                f"{self.time} is over before a job that is warned {self.signal_seconds} seconds early has begun",
                f"more than {self.signal_seconds + SECONDS_TO_START} seconds; SLURM may warn a minute too early",
            )
        for name in ("partition", "account", "qos", "constraint"):
            value = getattr(self, name)
            if value and not PLAIN.fullmatch(value):
                raise bad(f"--{name}", f"{value!r:.60} is no name", "letters, digits and _.,:/@+=&|*()[]!-")
        for option in self.more:
            check_option(option)

    def options(self, log: str, elements: Iterable[int], at_a_time: int) -> list[str]:
        """Returns sbatch's options, one word each, but for the job's name.

        Args:
            log: Where a job writes; may hold SLURM's patterns.
            elements: Numbers of an array's elements; empty for a job by itself.
            at_a_time: How many elements run at once; 0 for as many as there is room for.
        """
        numbers = ranges(elements)
        chosen = {name: getattr(self, name) for name in ("partition", "account", "qos", "constraint", "mem")}
        return [
            f"--nodes={self.nodes}",
            f"--ntasks-per-node={self.tasks_per_node}",
            *([f"--gpus-per-node={self.gpus_per_node}"] if gpus_in(self.gpus_per_node) else []),
            f"--cpus-per-task={self.cpus_per_task}",
            f"--time={self.time}",
            f"--signal=SIGUSR1@{self.signal_seconds}",
            "--requeue",
            "--open-mode=append",  # a log goes on after a requeue instead of starting over
            f"--output={log}",
            *([f"--array={numbers}" + (f"%{at_a_time}" if at_a_time else "")] if numbers else []),
            *(f"--{name}={value}" for name, value in chosen.items() if value),
            *self.more,
        ]


def check_job_name(name: str) -> None:
    """Refuses a name that SLURM or Lightning would take for something else.

    Raises:
        BadInputError: If it is one.
    """
    if not JOB_NAME.fullmatch(name):
        raise bad("--job-name", f"{name!r:.60} is no name of a job", "letters, digits and _.- (at most 64)")
    if name in INTERACTIVE_JOBS:
        raise bad("--job-name", f"a job called {name} is taken for a prompt, where SLURM is ignored", "another name")


def check_option(option: str) -> None:
    """Looks at a further option of sbatch.

    Raises:
        BadInputError: If it is none, or one that has a flag here or is set already.
    """
    name, _, value = option.partition("=")
    if not re.fullmatch(r"--[a-z][a-z-]*", name) or (value and not PLAIN.fullmatch(value)):
        raise bad("--sbatch", f"{option!r:.60} is no option", "--NAME or --NAME=VALUE, as in --sbatch=--exclusive")
    if any(own.startswith(name.removeprefix("--")) for own in OWN_OPTIONS):  # sbatch takes shortened names, too
        raise bad(
            "--sbatch", f"{name} is set by the submission itself", "a flag of `m2pt slurm submit`, if there is one"
        )


def gpus_in(text: str) -> int:
    """Returns how many GPUs ``4`` or ``a100:4`` asks for; 0 if it is empty.

    Raises:
        BadInputError: If it is no number of GPUs.
    """
    if not text:
        return 0
    found = GPUS.fullmatch(text)
    if found is None:
        raise bad("--gpus-per-node", f"{text!r:.40} is no number of GPUs", "a number, or TYPE:NUMBER such as a100:4")
    return int(found[1])


def seconds_of(text: str) -> int:
    """Returns a time limit in seconds.

    Raises:
        BadInputError: If it has none of SLURM's forms.
    """
    found = TIME.fullmatch(text)
    if found is None:
        raise bad(
            "--time", f"{text!r:.40} is no time", "MINUTES, HOURS:MINUTES:SECONDS, DAYS-HOURS or DAYS-HOURS:MINUTES"
        )
    days, first, second, third = (int(part or 0) for part in found.groups())
    if found[1] is not None:
        return ((days * 24 + first) * 60 + second) * 60 + third
    return (first * 60 + second) * 60 + third if found[4] is not None else first * 60 + second


def ranges(numbers: Iterable[int]) -> str:
    """Returns numbers as sbatch's ``--array`` takes them, such as ``0-3,7``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def bad(flag: str, what: str, expected: str) -> BadInputError:
    """Returns the error about a flag."""
    return BadInputError(what, where=f"command line: {flag}", expected=expected)
