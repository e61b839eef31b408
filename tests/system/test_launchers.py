"""Every launcher's processes tune together as one process does, or are refused, each of them, in three lines."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_m2pt.errors import ExitCode
from tests.support.commands_on_ranks import Ended, command_on_ranks
from tests.support.ranks import free_port, torchrun_variables
from tests.support.small_experiment import fitted, small_words

CHECKOUT = Path(__file__).parents[2]
BATCH, STEPS = 4, 3
ON_TWO = ("--trainer.strategy", "ddp", "--trainer.devices", "2")
ON_TWO_NODES = ("--trainer.strategy", "ddp", "--trainer.devices", "1", "--trainer.num_nodes", "2")
M2PT = ("-m", "lightning_m2pt.main")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
SCRIPT = str(CHECKOUT / "lightning_m2pt" / "main.py")

Variables = Callable[[int, str], dict[str, str]]
"""What a launcher sets in a process, by its number and the port that was found."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("launchers")


def words(data: Path, *more: str) -> list[str]:
    return ["fit", *small_words(data, batch_size=BATCH, steps=STEPS), *more]


@pytest.fixture(scope="module")
def alone(data: Path) -> bytes:
    """The adapter of one process whose micro-batches are those of two."""
    _, run = fitted(words(data, "--data.micro_batch_size", str(BATCH // 2))[1:], data / "alone")
    return adapter(run)


def adapter(run: Path) -> bytes:
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()


def with_variables(folder: Path, variables: Variables, command: list[str]) -> list[Ended]:
    """Runs a command in two processes in which a launcher has set these variables, and none of torchrun's."""

    def spoil(rank: int) -> None:
        port = os.environ["MASTER_PORT"]
        for name in ("RANK", "LOCAL_RANK", *torchrun_variables(2)):
            os.environ.pop(name)
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        os.environ.update(variables(rank, port))

    return command_on_ranks(2, lambda rank: command, folder, spoil)


def by_node(rank: int, port: str) -> dict[str, str]:
    return {"NODE_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def by_device(rank: int, port: str) -> dict[str, str]:
    return {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def by_srun(rank: int, port: str) -> dict[str, str]:
    """As SLURM 22.05 gives them to a task of `srun --ntasks-per-node 2`."""
    task = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0", "SLURM_NNODES": "1"}
    step = {"SLURM_STEP_ID": "0", "SLURM_STEPID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}
    job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "m2pt", "SLURM_NODELIST": "127.0.0.1"}
    return task | step | job | {"SLURM_NTASKS_PER_NODE": "2", "MASTER_PORT": port}


def without(name: str, variables: Variables) -> Variables:
    return lambda rank, port: {key: value for key, value in variables(rank, port).items() if key != name}


def adding(variables: Variables, **more: str) -> Variables:
    return lambda rank, port: variables(rank, port) | more


def by_mpirun(rank: int, port: str) -> dict[str, str]:
    return {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_LOCAL_RANK": str(rank)}


def by_kubernetes(rank: int, port: str) -> dict[str, str]:
    return {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def by_deepspeed(rank: int, port: str) -> dict[str, str]:
    return by_kubernetes(rank, port) | by_device(rank, port) | {"LOCAL_SIZE": "2", "CROSS_RANK": "0", "CROSS_SIZE": "1"}


@pytest.mark.parametrize(
    ("variables", "settings"),
    [
        (by_node, ON_TWO_NODES),
        pytest.param(by_srun, ON_TWO, marks=pytest.mark.slow),
        pytest.param(adding(by_srun, OMPI_COMM_WORLD_SIZE="2"), ON_TWO, marks=pytest.mark.slow),
        pytest.param(by_device, ON_TWO, marks=pytest.mark.slow),
        pytest.param(by_deepspeed, ON_TWO, marks=pytest.mark.slow),
    ],
)
def test_processes_of_a_launcher_tune_as_one_does(tmp_path, data, alone, variables, settings) -> None:
    ended = with_variables(tmp_path / "said", variables, words(data, *settings, "--run", str(tmp_path / "run")))
    assert [process.code for process in ended] == [0, 0], ended
    assert adapter(tmp_path / "run") == alone
    said = [(tmp_path / "said" / f"{rank}.out").read_text() for rank in range(2)]
    assert said[0].count("adapter: ") == 1
    assert said[1] == ""


@pytest.mark.parametrize(
    ("variables", "settings", "named"),
    [
        (by_srun, (), "SLURM started 2"),
        (without("SLURM_NTASKS_PER_NODE", by_srun), ON_TWO, "SLURM_NTASKS_PER_NODE"),
        (adding(by_srun, SLURM_JOB_NAME="bash"), ON_TWO, "srun --job-name"),
        (adding(by_srun, SLURM_JOB_NAME="interactive"), (), "srun --job-name"),
        (without("SLURM_STEP_ID", without("SLURM_STEPID", by_srun)), ON_TWO, "this is its script"),
        (without("SLURM_PROCID", by_srun), ON_TWO, "none of them"),
        (without("NODE_RANK", by_node), ON_TWO_NODES, "NODE_RANK"),
        (without("MASTER_ADDR", by_node), ON_TWO_NODES, "MASTER_ADDR"),
        (without("MASTER_PORT", by_device), ON_TWO, "MASTER_PORT"),
        (adding(by_node, MASTER_ADDR="a..b"), ON_TWO_NODES, "no machine called"),
        (by_mpirun, (), "mpirun"),
        (by_mpirun, ON_TWO, "mpirun"),
        (by_kubernetes, (), "WORLD_SIZE"),
        (by_kubernetes, ON_TWO, "LOCAL_RANK is not"),
        (adding(by_device, ACCELERATE_USE_FSDP="true"), ON_TWO, "ACCELERATE_USE_FSDP"),
        (adding(by_device, ACCELERATE_MIXED_PRECISION="bf16"), ON_TWO, "accelerate launch was told bf16"),
    ],
)
def test_processes_that_would_tune_alone_or_wait_are_refused(tmp_path, data, variables, settings, named) -> None:
    command = words(data, *settings, "--run", str(tmp_path / "run"))
    for process in with_variables(tmp_path / "said", variables, command):
        assert process.code == ExitCode.BAD_INPUT, process
        assert process.said.startswith("error: ")
        assert named in process.said
        assert len(process.said.strip().splitlines()) <= 3
    assert not (tmp_path / "run").exists()


def launched(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a launcher's own command in the checkout."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "LT_", "OMPI_"))}
    environment = own | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT), "GLOO_SOCKET_IFNAME": "lo"} | variables
    return subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=240)


def guarded(module: str, *words: str) -> tuple[str, ...]:
    """Returns how a launcher of others is started where torchvision does not fit torch, up to the script's words."""
    code = (
        f"import lightning_m2pt, runpy, sys; sys.argv[0] = '{module}'; runpy.run_module('{module}', None, '__main__')"
    )
    return (sys.executable, "-c", code, *words, str(free_port()), SCRIPT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        (sys.executable, *M2PT),
        (*TORCHRUN, "--standalone", "--nproc-per-node", "2", "--", SCRIPT),
        (*TORCHRUN, "--standalone", "--nproc-per-node", "2", "-m", "--", "lightning_m2pt.main"),
    ],
    ids=["plain", "torchrun with a path", "torchrun with a module"],
)
def test_a_launchers_own_command_tunes_as_one_process_does(tmp_path, data, alone, launcher) -> None:
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.touch(mode=0o755)
    path = f"{srun.parent}{os.pathsep}{os.environ['PATH']}"
    ended = launched(*launcher, *words(data, *ON_TWO, "--run", str(tmp_path / "run")), PATH=path)
    assert ended.returncode == 0, ended.stderr
    assert adapter(tmp_path / "run") == alone
    assert ended.stdout.count("adapter: ") == 1
    assert "`srun` command" not in ended.stderr  # Lightning warns of it in every Trainer outside SLURM


@pytest.mark.slow
def test_two_nodes_of_torchrun_tune_as_one_process_does(tmp_path, data, alone) -> None:
    meeting = (
        "--master-addr",
        "127.0.0.1",
        "--master-port",
        str(free_port()),
        "--nnodes",
        "2",
        "--nproc-per-node",
        "1",
    )
    command = words(data, *ON_TWO_NODES, "--run", str(tmp_path / "run"))
    nodes = [
        subprocess.Popen(
            (*TORCHRUN, *meeting, "--node-rank", str(node), "-m", "--", "lightning_m2pt.main", *command),
            cwd=CHECKOUT,
            # As in two tasks of srun that count the nodes the other way round.
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), "GLOO_SOCKET_IFNAME": "lo", "SLURM_PROCID": str(1 - node)},
        )
        for node in range(2)
    ]
    try:
        assert [node.wait(timeout=240) for node in nodes] == [0, 0]
    finally:
        for node in nodes:
            node.kill()
    assert adapter(tmp_path / "run") == alone


FABRIC = ("lightning.fabric.cli", "--accelerator", "cpu", "--devices", "2", "--main-port")
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [FABRIC, ACCELERATE], ids=lambda launcher: launcher[0])
def test_launchers_of_others_start_the_processes(tmp_path, data, alone, launcher) -> None:
    """Both start torchrun; the folder cannot be named by --run, which torchrun takes for one of its own."""
    ended = launched(*guarded(*launcher), *words(data, *ON_TWO, "--output_root", str(tmp_path)))
    assert ended.returncode == 0, ended.stderr
    [run] = (tmp_path / "m2pt_base").iterdir()
    assert adapter(run) == alone


BY_TORCHRUN = (*TORCHRUN, "--standalone", "--nproc-per-node", "2", "-m", "--", "lightning_m2pt.main")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "named"), [(BY_TORCHRUN, "torchrun started 2"), (guarded(*FABRIC), "fabric run started 2")]
)
def test_another_number_than_configured_is_refused_by_every_process(tmp_path, data, launcher, named) -> None:
    ended = launched(*launcher, *words(data, "--output_root", str(tmp_path / "outputs")))
    assert ended.returncode == 1  # torchrun's own, with a traceback of its own
    own_lines = ended.stderr.partition("torch/distributed")[0]
    assert named in own_lines
    assert "Traceback" not in own_lines
    assert "exitcode  : 2" in ended.stderr
    assert not (tmp_path / "outputs").exists()
