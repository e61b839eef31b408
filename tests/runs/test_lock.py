"""Two commands never tune in one folder: the second is refused, and a kill frees the folder."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from lightning.pytorch import Callback, Trainer

from experiments.configuration.cli import parse_experiment
from experiments.runs import lock
from experiments.runs.folder import run_folder
from experiments.runs.lock import alone_in
from experiments.runs.tuning import fit
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.system.file_lock import lock_file
from tests.support.small_experiment import small_words

ROOT = Path(__file__).parents[2]
HOLD = """
import os, sys, time
from pathlib import Path
from experiments.runs.lock import alone_in
with alone_in(Path(sys.argv[1])):
    if len(sys.argv) > 2 and os.fork() == 0:
        time.sleep(float(sys.argv[2]))
        os._exit(0)
    sys.stdout.write("in\\n")
    sys.stdout.flush()
    sys.stdin.read()
"""


def holder(run: Path, *more: str) -> subprocess.Popen[str]:
    """Starts a process that is alone in a folder, and returns once it is."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run), *more],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


def let_go(process: subprocess.Popen[str]) -> None:
    process.communicate("")
    assert process.returncode == 0


@pytest.mark.parametrize("verb", ["fit", "train"])
def test_a_second_command_is_refused_and_told_who_is_there(tmp_path, capfd, verb):
    sets = json.dumps([{"class_path": "data_modules.mnist.MNIST", "init_args": fake_mnist(tmp_path)}])
    words = [*small_words(tmp_path, steps=1), "--benchmarks", sets]
    run = run_folder(parse_experiment(words))
    process = holder(run)
    assert main([verb, *words]) == ExitCode.BAD_INPUT
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) <= 3
    assert f"{run.name}: process {process.pid} on " in lines[0]
    assert lines[0].endswith("is training in this folder")
    assert main([verb, *words, "--force"]) == ExitCode.BAD_INPUT
    assert not run.exists()
    let_go(process)
    assert main([verb, *words]) == ExitCode.DONE
    assert (run / "adapter").is_dir()
    assert not lock_file(run).exists()


def fake_mnist(folder: Path) -> dict[str, str | int]:
    from data_modules.mnist import MNIST

    MNIST.write_fake(folder / "mnist")
    return {"root": str(folder / "mnist"), "template": "vicuna_v1", "batch_size": 4, "max_new_tokens": 2}


class SecondCommand(Callback):
    """Starts the same command again while the first one trains."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.ended: list[subprocess.CompletedProcess[str]] = []

    def on_train_batch_end(self, *_: object) -> None:
        if not self.ended:
            command = [sys.executable, "-m", "lightning_m2pt.main", "fit", *self.words]
            self.ended.append(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False))


def test_the_folder_is_held_while_training_and_the_first_command_goes_on(tmp_path):
    words = [*small_words(tmp_path, steps=3), "--run", str(tmp_path / "run")]
    experiment = parse_experiment(words[:-2])
    second = SecondCommand(words)
    experiment.trainer_config["callbacks"] = [second]
    run = fit(experiment, folder=tmp_path / "run")
    assert second.ended[0].returncode == ExitCode.BAD_INPUT
    assert f"process {os.getpid()} on " in second.ended[0].stderr
    record = json.loads((run / "run.json").read_text())
    assert record["completed"]["optimizer_steps"] == 3
    assert len(record["made_with"]) == 1


class Fails(Callback):
    def on_train_start(self, trainer: Trainer, *_: object) -> None:
        raise OSError("the disk is gone")


def test_an_error_gives_the_folder_back(tmp_path):
    experiment = parse_experiment(small_words(tmp_path, steps=1))
    experiment.trainer_config["callbacks"] = [Fails()]
    with pytest.raises(OSError, match="disk is gone"):
        fit(experiment, folder=tmp_path / "run")
    with alone_in(tmp_path / "run"):
        pass
    assert not lock_file(tmp_path / "run").exists()


def test_a_killed_process_frees_the_folder(tmp_path):
    process = holder(tmp_path / "run")
    with pytest.raises(BadInputError, match="is training"), alone_in(tmp_path / "run"):
        pass
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with alone_in(tmp_path / "run"):
        assert str(os.getpid()) in lock_file(tmp_path / "run").read_text()


def test_what_a_killed_process_leaves_behind_is_waited_for(tmp_path, capsys):
    process = holder(tmp_path / "run", "2")
    process.kill()
    process.wait()
    with alone_in(tmp_path / "run"):
        assert f"of process {process.pid}, which was killed, are ending" in capsys.readouterr().out


def test_other_ranks_lock_nothing(tmp_path, monkeypatch):
    with alone_in(tmp_path / "run"):
        monkeypatch.setenv("LOCAL_RANK", "1")
        with alone_in(tmp_path / "run"):
            pass
        assert lock_file(tmp_path / "run").exists()


def of_another_machine(run: Path) -> Path:
    file = lock_file(run)
    file.write_text(json.dumps({"process": 7, "host": "node7"}))
    return file


def test_a_process_of_a_machine_without_common_locks_is_noticed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock, "TOUCHED_SECONDS", 0.05)
    monkeypatch.setattr(lock, "LISTENING_SECONDS", 20.0)
    run = tmp_path / "run"
    file = of_another_machine(run)
    is_over = threading.Event()

    def its_signs_of_life() -> None:
        while not is_over.wait(0.05):
            os.utime(file)

    other = threading.Thread(target=its_signs_of_life)
    other.start()
    try:
        with pytest.raises(BadInputError, match="process 7 on node7 is training in this folder"), alone_in(run):
            pass
    finally:
        is_over.set()
        other.join()
    assert "process 7 on node7" in capsys.readouterr().out
    assert json.loads(file.read_text())["host"] == "node7"  # still the other's


@pytest.mark.parametrize("ago", [0.0, 3600.0])
def test_what_a_killed_process_of_another_machine_has_left_is_taken_over(tmp_path, monkeypatch, capsys, ago):
    monkeypatch.setattr(lock, "LISTENING_SECONDS", 0.2)
    monkeypatch.setattr(lock, "TOUCHED_SECONDS", 0.05)
    run = tmp_path / "run"
    file = of_another_machine(run)
    os.utime(file, (time.time() - ago, time.time() - ago))
    with alone_in(run):
        before = file.stat().st_mtime
        assert json.loads(file.read_text())["process"] == os.getpid()
        for _ in range(400):
            if file.stat().st_mtime != before:
                break
            time.sleep(0.05)
        assert file.stat().st_mtime > before  # signs of life of our own
    assert not file.exists()
    assert ("waiting" in capsys.readouterr().out) == (ago == 0.0)
