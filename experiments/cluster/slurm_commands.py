"""SLURM's own commands: what they are asked, and what it means if they fail."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_m2pt.errors import EnvironmentFailure

SECONDS_TO_ANSWER = 60
QUEUE_FIELDS = (("JobArrayID", 40), ("State", 20), ("RestartCnt", 12), ("TimeLeft", 20), ("Name", 70), ("Reason", 60))
OF_A_JOB = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT")
"""Variables of SLURM that are no job's."""


@dataclass(frozen=True)
class Queued:
    """A job, or an element of an array, as ``squeue`` shows it.

    Attributes:
        job: ``12`` or ``12_3``.
        state: Such as RUNNING.
        restarts: How often it was put back into the queue.
        time_left: Until its limit.
        name: Its name, perhaps cut off.
        reason: Why it waits.
    """

    job: str
    state: str
    restarts: int
    time_left: str
    name: str
    reason: str

    @property
    def is_over(self) -> bool:
        """Whether it has ended; SLURM shows such jobs for some minutes."""
        return self.state not in ("PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING", "REQUEUED", "STOPPED")


def require(program: str) -> None:
    """Looks for one of SLURM's commands.

    Raises:
        EnvironmentFailure: If it is not on the path.
    """
    if shutil.which(program) is None:
        raise EnvironmentFailure(
            f"{program} is not here",
            where="SLURM",
            expected="a machine from which jobs are submitted, such as a cluster's login node",
            hint="`m2pt slurm submit ... --dry-run` shows the script without it",
        )


def asked(words: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Runs one of SLURM's commands and returns what it says.

    Raises:
        EnvironmentFailure: If it is not here, refuses, or does not answer.
    """
    require(words[0])
    try:
        answer = subprocess.run(
            words, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, env=environment, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFailure(
            f"no answer in {SECONDS_TO_ANSWER} seconds",
            where=words[0],
            expected="a SLURM controller that can be reached",
            hint="`scontrol ping` says whether it is there",
        ) from error
    if answer.returncode:
        said = " ".join((answer.stderr or answer.stdout).split())
        raise EnvironmentFailure(
            said[:300] or f"exit code {answer.returncode}",
            where=words[0],
            expected="SLURM takes what it is asked",
            hint="`sinfo` lists partitions and their limits",
        )
    return answer.stdout


def submit(options: Sequence[str], script: str) -> str:
    """Submits a script and returns the job's number.

    The options stand in the script, too. They are given as words as well, because variables such as SBATCH_PARTITION
    win over a script's lines. Variables of a job in which we may be are taken away: the new job would inherit them.

    Raises:
        EnvironmentFailure: If SLURM does not take it.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_") or name in OF_A_JOB}
    return asked(["sbatch", "--parsable", *options, script], kept).strip().partition(";")[0]


def queued() -> dict[str, Queued]:
    """Returns this user's jobs by number, also the ones that ended some minutes ago.

    Raises:
        EnvironmentFailure: If SLURM is not here.
    """
    fields = ",".join(f"{name}:{width}" for name, width in QUEUE_FIELDS)
    words = ["squeue", f"--user={os.getuid()}", "--states=all", "--array", "--noheader", f"--Format={fields}"]
    found = {}
    for line in asked(words).splitlines():
        parts, start = [], 0
        for _, width in QUEUE_FIELDS:
            parts.append(line[start : start + width].strip())
            start += width
        job, state, restarts, time_left, name, reason = parts
        if job:
            found[job] = Queued(job, state, int(restarts or 0), time_left, name, reason)
    return found


def accounted(jobs: Sequence[str]) -> dict[str, str]:
    """Returns the states of jobs as SLURM's accounting keeps them; empty where it keeps none."""
    if not jobs or shutil.which("sacct") is None:
        return {}
    words = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={','.join(jobs)}", "--format=JobID,State"]
    try:
        lines = asked(words).splitlines()
    except EnvironmentFailure:  # most small clusters have no accounting
        return {}
    return {job: state.partition(" ")[0] for job, _, state in (line.partition("|") for line in lines) if state}
