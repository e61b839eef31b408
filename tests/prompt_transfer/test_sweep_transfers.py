"""``m2pt sweep transfers``: trainings, every prompt on every base, and the table, on invented data and a few steps."""

import json
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data_modules.mnist import MNIST
from data_modules.vision_flan import VisionFlan
from experiments.sweep import runner
from experiments.sweep.jobs import Job
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main

ROOT = Path(__file__).parents[2]
METHOD = "lightning_m2pt.methods.pixel_prompting.PixelPrompting"
LONGEST = 1200.0
BASES = {
    name: f"{ROOT}/experiments/backbones/{file}.yaml" for name, file in (("A", "testbed"), ("B", "testbed_patch12"))
}


def write_files(folder: Path, steps: int = 2, **row: Any) -> Path:
    """Writes invented data, an experiment with a pixel prompt, a set and a sweep over both embedded backbones."""
    VisionFlan.write_fake(folder / "vision_flan")
    MNIST.write_fake(folder / "mnist")
    method = {"method": {"class_path": METHOD}, "gradient_norm": {"rate": 0.5}}
    experiment = {
        "include": [f"{ROOT}/experiments/parts/testbed.yaml"],
        "model": method,
        "trainer": {"max_steps": steps},
    }
    data = {"root": str(folder / "vision_flan"), "validation_file": None, "validation_fraction": 0.5, "batch_size": 8}
    settings = {
        "root": str(folder / "mnist"),
        "template": "vicuna_v1",
        "batch_size": 8,
        "max_new_tokens": 2,
        "limit": 8,
    }
    one_set = {
        "data": {"init_args": {**data, "questions_per_sample": 1}},
        "benchmarks": [{"class_path": "data_modules.mnist.MNIST", "init_args": settings}],
    }
    sweep = {
        "seeds": [0],
        "transfer": {
            "answer": "likelihood_sum",
            "bases": BASES,
            "sets": {"mnist": str(folder / "set.yaml")},
            "random_like": "own",
            "rows": [{"label": "own", "config": str(folder / "mine.yaml"), **row}],
            "means": [{"row": "own", "set": "mnist"}],
        },
    }
    for name, content in (("mine", experiment), ("set", one_set), ("tiny", sweep)):
        (folder / f"{name}.yaml").write_text(json.dumps(content, indent=1))
    return folder / "tiny.yaml"


class Here:
    """Runs a sweep's commands in this process, one after another; what they write is in their logs."""

    def __init__(self) -> None:
        self.verbs: list[str] = []

    def process(self, own: runner.SweepRunner, job: Job, at: int, _lock: int) -> SimpleNamespace:
        """Takes the place of the runner's own, which starts a process."""
        words = job.commands[at]
        self.verbs.append(words[0])
        with own._record.log_file(job).open("a") as log, redirect_stdout(log):
            code = int(main(list(words)))
        return SimpleNamespace(poll=lambda: code)


def words_for(path: Path, *more: str) -> list[str]:
    return ["sweep", "transfers", str(path), "--output_root", str(path.parent / "out"), *more]


def test_all_of_it_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_files(tmp_path)
    here = Here()
    monkeypatch.setattr(runner.SweepRunner, "_process", lambda own, *what: here.process(own, *what))
    assert main(words_for(path)) == ExitCode.DONE, capfd.readouterr()
    # Two trainings, each prompt on both bases, and the mean of both on both; there is one seed, and no mean of it.
    assert here.verbs == ["train"] * 2 + ["transfer"] * 6
    folder = tmp_path / "out" / "sweeps" / "tiny"
    content = json.loads((folder / "transfers.json").read_text())
    assert [(row["row"], row["source"], row["target"]) for row in content["directions"]] == [
        ("random of own's norm", "A", "B"),
        ("own", "A", "B"),
        ("random of own's norm", "B", "A"),
        ("own", "B", "A"),
        ("own, mean over bases", "A+B", "A"),
        ("own, mean over bases", "A+B", "B"),
    ]
    own = content["directions"][1]
    assert own["missing"] == []
    assert own["score"] - own["untouched"] == pytest.approx(own["gain"]["value"])
    assert own["feature_distance"] > 0
    assert len(list((tmp_path / "out" / "frozen").iterdir())) == 4  # two bases, greedy as trained and by likelihood
    said = capfd.readouterr().out
    assert "transfers of tiny" in said
    # The same command does nothing again; the table alone is the same.
    for more in ((), ("--table-only",)):
        assert main(words_for(path, *more)) == ExitCode.DONE
        assert json.loads((folder / "transfers.json").read_text()) == content
    assert len(here.verbs) == 8
    assert main(["sweep", "status", str(path), "--output_root", str(tmp_path / "out")]) == ExitCode.DONE
    assert "8 done" in capfd.readouterr().out


def refused(words: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    assert main(words) == ExitCode.BAD_INPUT
    error = capfd.readouterr().err
    assert len(error.splitlines()) <= 3
    return " ".join(error.split())


def test_what_cannot_be_carried_is_refused_before_anything_is_trained(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_files(tmp_path)
    assert "nothing is carried to another base in this sweep" in refused(["sweep", "transfers", "ablation"], capfd)
    assert "0 cells at a time" in refused(words_for(path, "--jobs", "0"), capfd)
    assert "--backbone" in refused(words_for(path, "--backbone", "testbed"), capfd)
    others = json.loads((tmp_path / "set.yaml").read_text())
    (tmp_path / "set.yaml").write_text(json.dumps({**others, "benchmarks": []}))
    assert "'own mnist A' is asked nothing" in refused(words_for(path), capfd)
    text_set = {"class_path": "data_modules.text_vqa.TextVQA", "init_args": others["benchmarks"][0]["init_args"]}
    (tmp_path / "set.yaml").write_text(json.dumps({**others, "benchmarks": [text_set]}))
    assert "expected: `benchmarks` with the one set mnist" in refused(words_for(path), capfd)
    path = write_files(tmp_path, config="projector")
    assert "'own mnist A' trains no prompt in pixels" in refused(words_for(path), capfd)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_killed_with_what_it_runs_it_ends_with_the_same_table(tmp_path: Path) -> None:
    """Killed while the first prompt is carried to a base; then the same command goes on."""
    paths = []
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        paths.append(write_files(tmp_path / name))
    whole, cut = paths
    program = [sys.executable, "-m", "lightning_m2pt.main"]
    assert subprocess.run([*program, *words_for(whole, "--jobs", "2")], cwd=ROOT, timeout=LONGEST).returncode == 0
    process = subprocess.Popen([*program, *words_for(cut)], cwd=ROOT)
    last = time.monotonic() + LONGEST
    while not list((cut.parent / "out" / "transfers").glob("tiny/*")):
        assert process.poll() is None
        assert time.monotonic() < last
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for number in [process.pid, *map(int, children)]:
        subprocess.run(["kill", "-KILL", str(number)], check=False)
    assert process.wait(timeout=LONGEST) == -signal.SIGKILL
    assert subprocess.run([*program, *words_for(cut)], cwd=ROOT, timeout=LONGEST).returncode == 0
    tables = [(path.parent / "out" / "sweeps" / "tiny" / "transfers.json").read_text() for path in paths]
    assert tables[0] == tables[1]
    assert json.loads(tables[0])["directions"][0]["missing"] == []
