"""Sweeps of real experiments, small ones: killed in the middle, with the learning-rate search, and wrong ones."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from callbacks import loggers
from experiments.runs import prepare
from experiments.sweep import status as sweep_status
from experiments.testbed import render as testbed
from lightning_m2pt.commands.report import read_groups
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.runs.evaluated import find_run_folders
from tests.support.runs.small_sweep import write_experiment, write_sweep

ROOT = Path(__file__).parents[2]
NATIVE = {"root": "data/testbed/vsr", "template": "native"}
TEXT = "what is in the picture ? " * 2


def words_for(path: Path, *more: str) -> list[str]:
    return ["sweep", "run", str(path), "--output_root", str(path.parent / "out"), "--jobs", "2", *more]


def rows_of(path: Path) -> str:
    text = (path.parent / "out" / "sweeps" / "tiny" / "table.json").read_text()
    for row in (rows := json.loads(text)["rows"]):
        row["runs"] = [Path(run).name for run in row["runs"]]
    return json.dumps(rows)


def test_the_names_that_are_read_are_those_that_are_written():
    assert (sweep_status.METRICS_FILE, sweep_status.STEP) == (loggers.METRICS_FILE, loggers.STEP)


@pytest.mark.parametrize(
    ("cell", "named"),
    [
        ({"arguments": {"model.method.visual_lenght": 0}}, "did you mean visual_length?"),
        ({"arguments": {"model.method.visual_length": -4}}, "-4 is negative"),
        ({"config": "frozen"}, "trains nothing"),
        ({"arguments": {"data.template": "native"}}, "the model has no chat template"),
        ({"arguments": {"benchmarks": [{"class_path": "data_modules.vsr.VSR", "init_args": NATIVE}]}}, "chat template"),
        ({"arguments": {"model.method.init": "words", "model.method.init_text": TEXT}}, "there are 10 rows"),
    ],
    ids=["misspelt key", "wrong value", "frozen", "native", "native set", "too many words"],
)
def test_what_an_experiment_refuses_ends_the_sweep_before_anything_runs(tmp_path, capfd, cell, named):
    small = {"label": "small", "config": str(write_experiment(tmp_path))}
    wrong = {"label": "wrong", "config": "m2pt_base"} | cell
    path = write_sweep(tmp_path, seeds=[0], cells=[small, wrong])
    assert main(words_for(path)) == ExitCode.BAD_INPUT
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) <= 3
    assert lines[0].startswith(f"error: {path}:")
    assert named in " ".join(lines)
    assert not (tmp_path / "out" / "small").exists()


def test_the_testbed_is_rendered_once_when_several_need_it(tmp_path, monkeypatch):
    rendered: list[Path] = []

    def render(_root: Path, _seed: int) -> None:
        time.sleep(0.2)
        rendered.append(tmp_path)

    monkeypatch.setattr(prepare, "TESTBED_ROOT", tmp_path / "testbed")
    monkeypatch.setattr(prepare, "is_complete", lambda *_: bool(rendered))
    monkeypatch.setattr(testbed, "render_testbed", render)
    experiment = SimpleNamespace(data=SimpleNamespace(root=tmp_path / "testbed" / "vision_flan"), benchmarks=[])
    threads = [threading.Thread(target=prepare.render_testbed_if_used, args=(experiment,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rendered == [tmp_path]


@pytest.mark.slow
def test_a_sweep_killed_with_everything_it_started_ends_with_the_same_table(tmp_path):
    """The sweep and its cells are killed in the middle of tuning, and again later; the search is part of it."""
    paths = []
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        config = str(write_experiment(tmp_path / name, steps=8, save_every_n_steps=2))
        search = {"trials": 2, "share_of_steps": "1/4", "seed": 0, "ranges": {"interaction": [1e-5, 1e-3]}}
        cells = [{"label": "small", "config": config}]
        paths.append(write_sweep(tmp_path / name, seeds=[0, 1], cells=cells, search=search))
    whole, cut = paths
    assert subprocess.run([sys.executable, "-m", "lightning_m2pt.main", *words_for(whole)], cwd=ROOT).returncode == 0
    for reached in ("sweeps/trials/*/metrics.csv", "small/*/metrics.csv"):
        command = [sys.executable, "-m", "lightning_m2pt.main", *words_for(cut)]
        process = subprocess.Popen(command, cwd=ROOT)
        while not list((tmp_path / "cut" / "out").glob(reached)):
            assert process.poll() is None
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for number in [process.pid, *map(int, children)]:
            subprocess.run(["kill", "-KILL", str(number)], check=False)
        assert process.wait() == -signal.SIGKILL
    assert subprocess.run([sys.executable, "-m", "lightning_m2pt.main", *words_for(cut)], cwd=ROOT).returncode == 0
    assert rows_of(cut) == rows_of(whole)
    assert len(json.loads(rows_of(cut))[1]["seeds"]) == 2
    (group,) = read_groups([tmp_path / "cut" / "out" / "small"], [], [])
    assert [run.seed for run in group.runs] == [0, 1]
    assert len(find_run_folders([tmp_path / "cut" / "out"])) == 3  # with the frozen model's; trials answered nothing
