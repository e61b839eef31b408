"""A SLURM of one node: the distribution's daemons, started in a folder by whoever tests, and stopped again.

``apt-get install slurm-wlm munge`` brings them; no systemd, no database and no other user is needed.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "srun", "setpriv")
SECONDS_TO_START = 60.0
SECONDS_TO_EMPTY = 60.0
CONFIGURATION = """\
ClusterName=m2pt
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld
SlurmdLogFile={folder}/log/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,builtin_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=20
SlurmdParameters=config_overrides
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=60 State=UP
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=2 PreemptMode=OFF State=UP
"""
"""``cred_expire``: SLURM holds a requeued job for as long as a credential lives, two minutes if nothing is said.
``GraceTime``: what a job has left that another one pushes out."""


def missing_programs() -> list[str]:
    """Returns which of SLURM's programs are not here."""
    return [name for name in PROGRAMS if program(name) is None]


def program(name: str) -> str | None:
    """Returns a program's path; daemons are where a user's path does not lead."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")


def wait_until(is_so: Callable[[], object], seconds: float, what: str) -> None:
    """Waits for something, and fails by its name if it does not come."""
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            raise AssertionError(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.2)


def free_ports(number: int) -> list[int]:
    """Returns ports that nobody listens on at this moment."""
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


@contextlib.contextmanager
def running_cluster(folder: Path, cores: int = 2) -> Iterator[dict[str, str]]:
    """Starts munge, the controller and a node; stops them and all jobs when the block ends, however it ends.

    Args:
        folder: Where their files are; a new one, with a short path (sockets have no room for a long one).
        cores: As many as the node says it has.

    Yields:
        The environment variables with which SLURM's commands find this cluster.
    """
    for name in ("munge", "state", "spool", "log"):
        (folder / name).mkdir(mode=0o700, parents=True)
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    controller_port, node_port = free_ports(2)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            folder=folder,
            host=socket.gethostname().partition(".")[0],
            user=subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip(),
            controller_port=controller_port,
            node_port=node_port,
            cores=cores,
        )
    )
    variables = {"SLURM_CONF": str(configuration)}
    munge = [f"--key-file={key}", f"--socket={folder}/munge/socket", f"--pid-file={folder}/munge/pid"]
    munge += [f"--seed-file={folder}/munge/seed", f"--log-file={folder}/log/munge", "--foreground", "--force"]
    with contextlib.ExitStack() as daemons:
        start = [("munged", munge), ("slurmctld", ["-D"]), ("slurmd", ["-D"])]
        for name, words in start:
            daemons.enter_context(running_daemon(folder, name, words, variables))
            if name == "munged":
                wait_until((folder / "munge" / "socket").exists, SECONDS_TO_START, "munge")
        daemons.callback(end_jobs, variables)  # called first, while they can still be asked
        wait_until(lambda: "idle" in asked(["sinfo", "-h", "-o", "%T"], variables), SECONDS_TO_START, "an idle node")
        yield variables


@contextlib.contextmanager
def running_daemon(folder: Path, name: str, words: list[str], variables: dict[str, str]) -> Iterator[None]:
    """Runs a daemon while the block does; it ends with this process, whatever ends that."""
    path = program(name)
    assert path is not None, f"{name} is not here"
    with (folder / "log" / f"{name}.out").open("wb") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", path, *words],
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C is for us: jobs are ended first
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


def asked(words: list[str], variables: dict[str, str]) -> str:
    """Returns what one of SLURM's commands says; empty if it fails."""
    environment = {**os.environ, **variables}
    answer = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30, check=False)
    return answer.stdout if answer.returncode == 0 else ""


def end_jobs(variables: dict[str, str]) -> None:
    """Cancels all jobs and waits until their processes are gone: these would outlive the daemons."""
    asked(["scancel", f"--user={os.getuid()}"], variables)
    states = ["squeue", "-h", "--states=RUNNING,PENDING,COMPLETING,SUSPENDED", "-o", "%i"]
    wait_until(lambda: not asked(states, variables).split(), SECONDS_TO_EMPTY, "all jobs gone")
