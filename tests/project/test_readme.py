"""Every command of the README is run: by the slow test as it stands, in a clone in an empty folder.

A command that needs what no test machine has (7B weights, SLURM) is run up to where it says so. Names in capitals in
the README (RUN) stand for what the first command made.
"""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

README = Path("README.md")
INSTALLED_STAMP = ".installed"


def commands() -> list[str]:
    """Returns every line of the README's code blocks without its comment, and each block of Python as one command."""
    found = []
    for language, block in re.findall(r"```(python|)\n(.*?)```", README.read_text(), re.DOTALL):
        if language:
            found.append(f".venv/bin/python -c {shlex.quote(block)}")
        else:
            found += [line.split("  #")[0].strip() for line in block.splitlines() if line.strip()]
    return found


NOT_AS_THEY_STAND = {
    # The test's clone borrows this environment instead of downloading packages again.
    "make install TORCH_INDEX=https://download.pytorch.org/whl/cpu": "make install",
    # This test runs inside `make test-slow`; the whole suite again would not end.
    "make test": "make test ARGS=tests/project/test_layout.py",
    # A server: that it starts and reads the folder is enough.
    ".venv/bin/tensorboard --logdir outputs": (
        "timeout 20 .venv/bin/tensorboard --logdir outputs --port 0 || test $? = 124"
    ),
    # Needs 7B weights: exits with 2 and says which files are missing.
    ".venv/bin/m2pt fit --config experiments/m2pt_vicuna7b.yaml --config experiments/strategies/ddp.yaml": (
        ".venv/bin/m2pt fit --config experiments/m2pt_vicuna7b.yaml --config experiments/strategies/ddp.yaml"
        " || test $? = 2"
    ),
    ".venv/bin/m2pt slurm submit experiments/m2pt_vicuna7b.yaml --nodes 2 --gpus-per-node 8 --dry-run": (
        ".venv/bin/m2pt slurm submit experiments/m2pt_vicuna7b.yaml --nodes 2 --gpus-per-node 8 --dry-run"
        " || test $? = 2"
    ),
}


def test_exceptions_name_commands_of_the_readme():
    assert set(NOT_AS_THEY_STAND) <= set(commands())


def test_the_front_door_is_short():
    assert len(README.read_text().splitlines()) <= 195


def test_the_two_commands_stand_first():
    assert commands()[:2] == ["make train EXP=m2pt_base", "make test"]


@pytest.mark.slow
def test_every_command_runs_in_a_fresh_clone(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(Path.cwd()), str(clone)], check=True)
    (clone / ".venv").symlink_to(Path(".venv").resolve())
    stamp = clone / ".venv" / INSTALLED_STAMP
    os.utime(stamp) if stamp.exists() else stamp.touch()
    # The borrowed environment's `m2pt` imports the checkout it was installed from; the clone's own comes first here.
    environment = {**os.environ, "PYTHONPATH": str(clone), "OMP_NUM_THREADS": "1"}
    run = ""
    for command in commands():
        words = NOT_AS_THEY_STAND.get(command, command).replace("RUN", run or "RUN")
        answer = subprocess.run(
            ["bash", "-c", words], cwd=clone, env=environment, capture_output=True, text=True, timeout=2400
        )
        assert answer.returncode == 0, f"{words}\n{answer.stdout[-2000:]}\n{answer.stderr[-2000:]}"
        # RUN is what the first command made; later ones add runs beside it.
        run = run or next((clone / "outputs" / "m2pt_base").glob("m2pt-*")).name
