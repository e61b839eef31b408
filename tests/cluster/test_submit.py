"""``m2pt slurm``: what is wrong is known before a job waits for hours; what was submitted is found again."""

import json
import shlex
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from experiments.cluster.records import (
    Stops,
    Submission,
    folder_of,
    read_stops,
    read_submission,
    submissions,
    write_stops,
    write_submission,
)
from experiments.sweep.file import read_sweep
from experiments.sweep.jobs import SweepSettings, cells
from experiments.sweep.record import Entry, State, SweepRecord
from experiments.sweep.runner import M2PT
from lightning_m2pt.main import main
from lightning_m2pt.storage.run_record import SLURM_JOB
from tests.support.runs.small_sweep import write_experiment, write_sweep
from tests.support.slurm_programs import SlurmPrograms
from tests.support.small_experiment import run_with_a_set, small_words

BASE = "experiments/m2pt_base.yaml"
QUICK = ["--time", "10:00"]


def asked_for(folder: Path, *words: str) -> list[str]:
    """Words that submit the small experiment, with its data in a folder whose name has a space."""
    settings = small_words(folder / "with space")[2:]
    place = settings.index("--output_root")
    return ["slurm", "submit", BASE, *settings[:place], *settings[place + 2 :], *QUICK, *words]


def in_three_lines(capsys: pytest.CaptureFixture[str]) -> str:
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert len(shown.splitlines()) <= 3
    return shown


def test_an_experiment_is_submitted_and_recorded(
    tmp_path: Path, slurm: SlurmPrograms, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")  # a prompt inside a job
    monkeypatch.setenv("SLURM_CONF", "/conf")
    slurm.answer("sbatch", "4711;main\n")
    root = tmp_path / "out put"
    write_stops(folder_of(root), Stops("4711", [10], ended=1))  # of another job that had this number
    words = asked_for(tmp_path, "--verb", "fit", "--output_root", str(root), "--tasks-per-node", "4", "--mem", "2G")
    assert main(words) == 0
    submission = read_submission(folder_of(root), "4711")
    assert submission is not None
    assert (submission.name, submission.verb, submission.tunes) == ("m2pt_base", "fit", True)
    assert submission.labels == {"": "fit m2pt_base"}
    (called,) = slurm.asked("sbatch")
    assert called[0] == "--parsable"
    inherited = slurm.environment("sbatch")
    assert "SLURM_JOB_ID" not in inherited
    assert inherited["SLURM_CONF"] == "/conf"
    assert read_stops(folder_of(root), "4711") == Stops("4711")
    assert called[-1] == submission.script
    assert {"--ntasks-per-node=4", "--cpus-per-task=1", "--mem=2G", "--time=10:00"} <= set(called)
    script = Path(submission.script).read_text()
    told = shlex.split(next(line for line in script.splitlines() if line.startswith("set -- ")))[2:]
    assert told[:5] == ["fit", "--config", BASE, "--config", "experiments/strategies/ddp.yaml"]
    assert told[-2:] == ["--output_root", str(root)]
    assert str(tmp_path / "with space" / "vision_flan") in told
    assert f"next    m2pt slurm status 4711 --output_root {root}" in capsys.readouterr().out


def test_a_dry_run_needs_no_slurm_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(asked_for(tmp_path, "--verb", "fit", "--output_root", str(tmp_path / "out"), "--dry-run")) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("#!/usr/bin/env bash\n")
    assert "strategies" not in shown  # one process needs none
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--tasks-per-node", "3"], "data.batch_size: 8 samples a step cannot be shared evenly by 3 devices"),
        (["--gpus-per-node", "2"], "--gpus-per-node: 2 GPUs a node for an experiment with trainer.accelerator cpu"),
        (["--trainer.accelerator", "gpu", "--gpus-per-node", "0"], "--gpus-per-node: no GPU"),
        (["--trainer.max_stepz", "3"], "max_stepz"),
        (["--trainer.devices", "2"], "--trainer.devices: this follows from"),
        (["--force"], "--force"),
        (["--strategy", "dpd"], "there is no strategy 'dpd'"),
        (["--strategy", "../strategies/ddp"], "there is no strategy"),
        (["--data.root", "nowhere"], "nowhere"),
        (["--backbone", "testbed"], "--backbone"),
        (["--time", "1:00"], "--time"),
        (["--verb", "train"], "benchmarks"),
        (["--model.method.init", "a\nb"], ""),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else "",
)
def test_what_is_wrong_is_refused_before_it_is_submitted(
    tmp_path: Path, slurm: SlurmPrograms, capsys: pytest.CaptureFixture[str], words: list[str], named: str
) -> None:
    verb = [] if "--verb" in words else ["--verb", "fit"]
    assert main(asked_for(tmp_path, *verb, "--output_root", str(tmp_path / "out"), *words)) == 2
    assert named in in_three_lines(capsys)
    assert slurm.asked("sbatch") == []
    assert not (tmp_path / "out").exists()


def test_a_sweep_is_an_array_of_what_is_left(
    tmp_path: Path, slurm: SlurmPrograms, capsys: pytest.CaptureFixture[str]
) -> None:
    write_experiment(tmp_path)
    variants = [{"label": "a b", "config": "small.yaml"}, {"label": "c", "config": "small.yaml", "seeds": [5]}]
    variants[1]["arguments"] = {"model.optimizer.weight_decay": 0.1}
    path = write_sweep(tmp_path, seeds=[0, 1], cells=variants)
    slurm.answer("sbatch", "9\n")
    words = ["slurm", "submit", str(path), *QUICK, "--output_root", str(tmp_path / "out"), "--at-a-time", "2"]
    assert main(words) == 0
    submission = read_submission(folder_of(tmp_path / "out"), "9")
    assert submission is not None
    assert submission.labels == {"0": "a b, seed 0", "1": "c, seed 5", "2": "a b, seed 1"}
    assert "--array=0-2%2" in slurm.asked("sbatch")[0]
    assert submission.log_of("9_2") == folder_of(tmp_path / "out") / "tiny-9_2.log"
    script = Path(submission.script).read_text()
    assert "  1) set -- train --config" in script
    assert "--model.optimizer.weight_decay=0.1 --output_root" in script
    assert "tiny, 3 cells" in capsys.readouterr().out
    status = ["sweep", "status", str(path), "--output_root", str(tmp_path / "out")]
    assert main(status) == 0
    assert f"`m2pt slurm status 9 --output_root {tmp_path / 'out'}`" in " ".join(capsys.readouterr().out.split())
    complete(path, tmp_path / "out", 1)
    slurm.answer("sbatch", "10\n")
    assert main(words) == 0
    assert "--array=0,2%2" in slurm.asked("sbatch")[1]
    for number in (0, 2):
        complete(path, tmp_path / "out", number)
    assert main(words) == 2
    assert "every cell is complete" in in_three_lines(capsys)
    assert main(status) == 0
    assert "slurm" not in capsys.readouterr().out


def complete(path: Path, root: Path, number: int) -> None:
    """Writes what a sweep knows of a cell that is complete."""
    sweep, setting = read_sweep(path), SweepSettings(output_root=root)
    job = cells(sweep, setting)[number]
    run = root / "small" / str(number)
    run.mkdir(parents=True)
    (run / "results.json").write_text('{"tuned": {}, "frozen": {}, "parameters": {"percent": 0.5}}')
    entry = Entry(job.label, job.name, [], "log", State.DONE, exit_code=0, run=str(run))
    SweepRecord(setting.folder(sweep), root / "sweeps" / ".locks").write(job, entry)


def test_a_search_comes_first(tmp_path: Path, slurm: SlurmPrograms, capsys: pytest.CaptureFixture[str]) -> None:
    write_experiment(tmp_path)
    search = {"trials": 2, "share_of_steps": 0.5, "seed": 0, "ranges": {"*": [1e-4, 1e-2]}}
    path = write_sweep(tmp_path, seeds=[0], cells=[{"label": "a", "config": "small.yaml"}], search=search)
    words = ["slurm", "submit", str(path), *QUICK, "--output_root", str(tmp_path / "out")]
    assert main(words) == 2
    assert "--search-only" in in_three_lines(capsys)
    assert main([*words, "--no-search", "--dry-run"]) == 0


@pytest.mark.parametrize("command", [["submit", BASE], ["status"], ["cancel", "1"]])
def test_without_slurm_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    recorded(tmp_path, "1", {"": "fit a"})
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["slurm", *command, "--output_root", str(tmp_path)]) == 3
    assert "is not here" in in_three_lines(capsys)


def test_what_slurm_refuses_is_said(tmp_path: Path, slurm: SlurmPrograms, capsys: pytest.CaptureFixture[str]) -> None:
    slurm.answer("sbatch", "sbatch: error: invalid partition specified: gpus\n", 1)
    assert main(asked_for(tmp_path, "--verb", "fit", "--output_root", str(tmp_path / "out"))) == 3
    assert "invalid partition specified: gpus" in in_three_lines(capsys)
    assert submissions(folder_of(tmp_path / "out")) == []


def test_a_job_that_cannot_be_recorded_is_cancelled(
    tmp_path: Path, slurm: SlurmPrograms, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "4711.json")

    slurm.answer("sbatch", "4711\n")
    monkeypatch.setattr("experiments.cluster.submission.write_submission", full)
    assert main(asked_for(tmp_path, "--verb", "fit", "--output_root", str(tmp_path / "out"))) == 3
    assert "No space left" in in_three_lines(capsys)
    assert slurm.asked("scancel") == [["4711"]]


def recorded(root: Path, job: str, labels: dict[str, str], name: str = "m2pt_base") -> Submission:
    folder = folder_of(root)
    log = str(folder / f"{name}-{'%A_%a' if '' not in labels else '%j'}.log")
    submission = Submission(job, name, "fit", f"2026-01-01T00:00:{job:0>2}", str(root), "", log, True, labels)
    write_submission(folder, submission)
    return submission


def test_status_says_what_slurm_and_the_jobs_say(
    tmp_path: Path, slurm: SlurmPrograms, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(tmp_path, "12", {"": "fit m2pt_base"})
    recorded(tmp_path, "13", {"0": "a, seed 0", "1": "a, seed 1"}, "tiny")
    recorded(tmp_path, "14", {"": "fit lost"})
    recorded(tmp_path, "15", {"": "fit reused"}, "mine")
    write_stops(folder_of(tmp_path), Stops("13_0", [10], ended=4))
    write_stops(folder_of(tmp_path), Stops("13_1", [10, 20]))  # of whose second restart squeue does not know yet
    run = tmp_path / "m2pt_base" / "m2pt-seed0-01"
    (run / "checkpoints" / "step=000040").mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"made_with": [{SLURM_JOB: "12"}]}))
    (run / "config.yaml").write_text(json.dumps({"trainer": {"max_steps": 300}}))
    slurm.queue(
        ("12", "RUNNING", "2", "1:23:45", "m2pt_base", "None"),
        ("13_1", "PENDING", "1", "10:00", "tiny", "Resources"),
        ("15", "RUNNING", "0", "9:00", "theirs", "None"),
    )
    slurm.answer("sacct", "14|CANCELLED by 0\n")
    assert main(["slurm", "status", "--output_root", str(tmp_path)]) == 0
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in capsys.readouterr().out.splitlines()]
    shown = {row[0]: row[1:] for row in rows if len(row) == 7 and row[0]}
    assert shown["12"][:5] == ["fit m2pt_base", "RUNNING", "2", "40 of 300", "1:23:45"]
    assert str(run) in "".join(row[-1] for row in rows if len(row) == 7)
    assert shown["13_0"] == ["a, seed 0", "FAILED", "1", "", "", "exit code 4"]
    assert shown["13_1"] == ["a, seed 1", "PENDING", "2", "", "", "Resources"]
    assert shown["14"][1] == "CANCELLED"
    assert shown["15"][1] == "gone"
    assert main(["slurm", "status", "13_1", "--output_root", str(tmp_path)]) == 0
    only = capsys.readouterr().out
    assert "13_1" in only
    assert "13_0" not in only


def test_cancel_takes_what_was_submitted_from_here_alone(
    tmp_path: Path, slurm: SlurmPrograms, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(tmp_path, "12", {"": "fit a"})
    recorded(tmp_path, "13", {"0": "a, seed 0", "1": "a, seed 1"}, "tiny")
    recorded(tmp_path, "15", {"": "fit reused"}, "mine")
    slurm.queue(
        ("12", "RUNNING", "0", "1:00", "m2pt_base", "None"),
        ("13_0", "COMPLETED", "0", "1:00", "tiny", "None"),
        ("13_1", "PENDING", "0", "1:00", "tiny", "None"),
        ("15", "RUNNING", "0", "9:00", "theirs", "None"),
        ("99", "RUNNING", "0", "9:00", "theirs", "None"),
    )
    words = ["slurm", "cancel", "--output_root", str(tmp_path)]
    for other in ("99", "13_7"):
        assert main([*words, other]) == 2
        assert other in in_three_lines(capsys)
    assert slurm.asked("scancel") == []
    assert main([*words, "13"]) == 0
    assert slurm.asked("scancel") == [["13_1"]]
    said = capsys.readouterr().out
    assert "over        13_0 (tiny)" in said
    assert "cancelled   13_1 (tiny, was pending)" in said
    assert main([*words, "all"]) == 0
    assert slurm.asked("scancel") == [["13_1"], ["12"], ["13_1"]]
    assert submissions(folder_of(tmp_path))[0].cancelled == ["12"]


def test_logs_show_the_end_and_nothing_in_them_drives_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submission = recorded(tmp_path, "13", {"0": "a", "1": "b"}, "tiny")
    words = ["slurm", "logs", "--output_root", str(tmp_path)]
    assert main([*words, "13_1"]) == 2
    assert "nothing is written yet" in in_three_lines(capsys)
    submission.log_of("13_1").write_text("one\ntwo [red]\nthree \x1b[2J\n")
    assert main([*words, "13_1", "--lines", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == ["two [red]", "three \\x1b[2J"]
    for wrong in ("13", "13_7", "x"):
        assert main([*words, wrong]) == 2
        in_three_lines(capsys)


@pytest.mark.parametrize("words", [["status", "--nodes", "2"], ["logs"], ["cancel"], ["after", "x"], ["resubmit"]])
def test_wrong_words(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["slurm", *words]) == 2
    in_three_lines(capsys)


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("ablatoin", "did you mean ablation?"),
        ("m2pt_vicuna7", "did you mean m2pt_vicuna7b?"),
        ("outputs/xyz/RUN", "`m2pt list experiments` and `m2pt list sweeps` tell names"),
    ],
)
def test_a_target_that_is_not_there(capsys: pytest.CaptureFixture[str], target: str, hint: str) -> None:
    assert main(["slurm", "submit", target, "--dry-run"]) == 2
    assert in_three_lines(capsys).splitlines() == [
        f"error: {target}: there is no such file or folder",
        "  expected: an experiment's or a sweep's file or name, or a run's folder",
        f"  hint: {hint}",
    ]


def test_a_damaged_record_is_named(tmp_path: Path, slurm: SlurmPrograms, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of(tmp_path).mkdir()
    for text in ("{", '{"job": "12"}', "[]"):
        (folder_of(tmp_path) / "12.json").write_text(text)
        assert main(["slurm", "status", "--output_root", str(tmp_path)]) == 2
        assert "12.json" in in_three_lines(capsys)


def test_a_log_is_followed_until_ctrl_c(tmp_path: Path) -> None:
    path = recorded(tmp_path, "12", {"": "fit a"}).log_of("12")
    words = ["slurm", "logs", "12", "-f", "--output_root", str(tmp_path)]
    with subprocess.Popen([*M2PT, *words], stdout=subprocess.PIPE, text=True) as reading:
        assert reading.stdout is not None
        stopping = threading.Timer(60, reading.kill)
        stopping.start()
        try:
            path.write_text("one\n")  # the job has just started
            assert reading.stdout.readline() == "one\n"
            with path.open("a") as log:
                log.write("two\n")
            assert reading.stdout.readline() == "two\n"
            reading.send_signal(signal.SIGINT)
            assert reading.wait(30) == 130
        finally:
            stopping.cancel()


def test_a_runs_folder_is_evaluated(tmp_path: Path, slurm: SlurmPrograms, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_with_a_set(tmp_path)
    capsys.readouterr()
    words = ["slurm", "submit", str(run), *QUICK, "--tasks-per-node", "2", "--dry-run"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    told = shlex.split(next(line for line in lines if line.startswith("set -- ")))[2:]
    assert told == ["evaluate", "--run", str(run), "--config", "experiments/strategies/ddp.yaml"]
    assert main([*words, "--verb", "fit"]) == 2
    assert "a run's folder with --verb evaluate" in in_three_lines(capsys)
