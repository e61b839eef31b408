"""Jobs in a real SLURM of one node: what they train is what a plain command trains, whatever stops them.

``make slurm-test`` runs this; it takes some minutes, most of them waiting.
"""

import json
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from experiments.cluster.records import folder_of, read_stops, read_submission, submissions
from experiments.cluster.runs import RunOfJob, runs_by_job
from experiments.cluster.slurm_commands import Queued, queued
from lightning_m2pt.main import main
from tests.support.runs.small_sweep import write_experiment, write_sweep
from tests.support.slurm_cluster import missing_programs, running_cluster, wait_until
from tests.support.small_experiment import BASE, fitted, small_words

pytestmark = pytest.mark.slurm
PATIENCE = 300.0
"""Seconds a job may take; a busy machine needs half a minute to start one."""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """The cluster of all these tests."""
    if missing := missing_programs():
        pytest.exit(
            f"error: {', '.join(missing)} not here\n  expected: a machine with SLURM's daemons and commands\n"
            "  hint: apt-get install --no-install-recommends slurm-wlm munge",
            returncode=3,
        )
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is stopped
    try:
        with (
            tempfile.TemporaryDirectory(prefix="slurm") as folder,
            running_cluster(Path(folder)) as variables,
            pytest.MonkeyPatch.context() as patched,
        ):
            for name, value in variables.items():
                patched.setenv(name, value)
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def settings(folder: Path, steps: int, *more: str) -> list[str]:
    """Words of the small experiment but for its file and its folder of runs."""
    words = small_words(folder, steps=steps)[2:]
    place = words.index("--output_root")
    return [*words[:place], *words[place + 2 :], *more]


def submit(target: str | Path, root: Path, *words: str) -> str:
    """Submits and returns the job's number."""
    assert main(["slurm", "submit", str(target), "--output_root", str(root), *words]) == 0
    return submissions(folder_of(root))[-1].job


def state(job: str) -> Queued:
    return queued()[job]


def ended(*jobs: str) -> None:
    wait_until(lambda: all(state(job).is_over for job in jobs), PATIENCE, f"the end of {jobs}")


def run_of(root: Path, job: str) -> RunOfJob | None:
    return runs_by_job(root).get(job)


def at_step(root: Path, job: str, step: int) -> None:
    def is_there() -> bool:
        run = run_of(root, job)
        return run is not None and run.step >= step and state(job).state == "RUNNING"

    wait_until(is_there, PATIENCE, f"step {step} of job {job}")


def log_of(root: Path, job: str) -> str:
    submission = read_submission(folder_of(root), job.partition("_")[0])
    assert submission is not None
    path = submission.log_of(job)
    return path.read_text(encoding="utf-8") if path.exists() else ""


def tensors_of(run: Path) -> dict[str, torch.Tensor]:
    (path,) = (run / "adapter").glob("*.safetensors")
    return safetensors.torch.load_file(path)


def assert_same(run: Path, other: Path) -> None:
    ours, theirs = tensors_of(run), tensors_of(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), f"{name}: {(tensor - theirs[name]).abs().max()}"


def plain(folder: Path, steps: int, *more: str) -> Path:
    """What the same words train without SLURM, in one process."""
    words = ["--config", BASE, *settings(folder, steps, *more), "--output_root", str(folder / "plain")]
    return fitted(words)[1]


def test_two_tasks_train_and_answer_what_one_process_does(tmp_path: Path) -> None:
    file, root = write_experiment(tmp_path, steps=12), tmp_path / "with space"
    job = submit(file, root, "--tasks-per-node", "2")
    ended(job)
    run = run_of(root, job)
    assert state(job).state == "COMPLETED", log_of(root, job)
    assert run is not None
    assert run.is_tuned
    words = ["--config", str(file), "--output_root", str(tmp_path / "plain"), "--data.micro_batch_size", "4"]
    alone = fitted(words)[1]
    assert_same(run.folder, alone)
    assert main(["evaluate", "--run", str(alone)]) == 0
    for name in ("vsr", "mnist"):
        together = (run.folder / "predictions" / f"{name}.jsonl").read_text().splitlines()
        assert len(together) > 1
        assert together[1:] == (alone / "predictions" / f"{name}.jsonl").read_text().splitlines()[1:]
    assert "vsr" in json.loads((run.folder / "results.json").read_text())["tuned"]
    job = submit(run.folder, root, "--tasks-per-node", "2", "--answer", "likelihood_sum")
    ended(job)
    assert state(job).state == "COMPLETED", log_of(root, job)
    assert "scores:" in log_of(root, job)


def test_a_sweep_of_four_cells_is_an_array(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_experiment(tmp_path)
    cells = [
        {"label": "as it is", "config": "small.yaml"},
        {"label": "decay", "config": "small.yaml", "arguments": {"model.optimizer.weight_decay": 0.1}},
    ]
    path, root = write_sweep(tmp_path, seeds=[0, 1], cells=cells), tmp_path / "out"
    job = submit(path, root, "--at-a-time", "2")
    elements = [f"{job}_{number}" for number in range(4)]
    ended(*elements)
    assert [state(element).state for element in elements] == ["COMPLETED"] * 4, log_of(root, elements[0])
    runs = runs_by_job(root)
    assert sorted(runs) == elements
    assert len({run.folder for run in runs.values()}) == 4
    capsys.readouterr()
    assert main(["sweep", "run", str(path), "--output_root", str(root)]) == 0  # finds every run complete
    assert {element: run.folder for element, run in runs_by_job(root).items()} == {e: runs[e].folder for e in elements}
    words = ["--config", str(tmp_path / "small.yaml"), "--output_root", str(tmp_path / "plain"), "--seed_everything"]
    assert_same(runs[elements[2]].folder, fitted([*words, "1"])[1])


def test_a_job_that_is_stopped_twice_ends_as_if_it_were_not(tmp_path: Path) -> None:
    """Once warned, as before the time limit; once pushed out by a job of a partition that goes first."""
    more = ("--save_every_n_steps", "5")
    job = submit(BASE, tmp_path / "out", *settings(tmp_path, 200, *more), "--verb", "fit")
    at_step(tmp_path / "out", job, 20)
    subprocess.run(["scancel", "--signal=USR1", job], check=True, timeout=60)
    wait_until(lambda: state(job).restarts == 1, PATIENCE, "the first restart")
    first = read_stops(folder_of(tmp_path / "out"), job).steps
    assert len(first) == 1
    at_step(tmp_path / "out", job, (first[0] or 0) + 10)
    urgent = ["sbatch", "--parsable", "--partition=urgent", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 3"]
    pushing = subprocess.run(urgent, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    wait_until(lambda: state(job).restarts == 2, PATIENCE, "the second restart")
    ended(pushing, job)
    log = log_of(tmp_path / "out", job)
    assert state(job).state == "COMPLETED", log
    steps = read_stops(folder_of(tmp_path / "out"), job).steps
    assert len(steps) == 2
    assert 20 <= (steps[0] or 0) < (steps[1] or 0) < 200
    assert f"stopped by SIGUSR1 after step {steps[0]}" in log
    assert f"stopped by SIGTERM after step {steps[1]}" in log
    run = run_of(tmp_path / "out", job)
    assert run is not None
    assert_same(run.folder, plain(tmp_path, 200, *more))


def test_a_cancelled_job_has_saved_and_stays_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, more = tmp_path / "out", ("--save_every_n_steps", "1000")
    job = submit(BASE, root, *settings(tmp_path, 300, *more), "--verb", "fit")
    wait_until(lambda: state(job).state == "RUNNING" and "step 1 of" in log_of(root, job), PATIENCE, "the first step")
    assert main(["slurm", "cancel", job, "--output_root", str(root)]) == 0
    assert f"cancelled   {job}" in capsys.readouterr().out
    ended(job)
    assert (state(job).state, state(job).restarts) == ("CANCELLED", 0)
    run = run_of(root, job)
    assert run is not None
    assert run.step > 0
    assert f"stopped by SIGTERM after step {run.step}" in log_of(root, job)
    again = submit(BASE, root, *settings(tmp_path, 300, *more), "--verb", "fit")
    ended(again)
    assert_same(run.folder, plain(tmp_path, 300, *more))


def test_a_job_that_is_killed_goes_on_from_the_checkpoint_before(tmp_path: Path) -> None:
    root, more = tmp_path / "out", ("--save_every_n_steps", "1")  # as good as always inside a save
    job = submit(BASE, root, *settings(tmp_path, 150, *more), "--verb", "fit")
    at_step(root, job, 20)
    subprocess.run(
        ["scancel", "--signal=KILL", f"{job}.0"], check=True, timeout=60
    )  # what srun started, not the script
    ended(job)
    assert (state(job).state, state(job).restarts) == ("FAILED", 0)
    assert read_stops(folder_of(root), job).ended == 137
    again = submit(BASE, root, *settings(tmp_path, 150, *more), "--verb", "fit")
    ended(again)
    run = run_of(root, again)
    assert run is not None
    assert_same(run.folder, plain(tmp_path, 150, *more))


def test_the_time_limit_warns_and_the_job_goes_on(tmp_path: Path) -> None:
    root, more = tmp_path / "out", ("--save_every_n_steps", "100000", "--trainer.max_steps", "100000")
    limit = ("--time", "2:00", "--signal-seconds", "45")
    job = submit(BASE, root, *settings(tmp_path, 1, *more), "--verb", "fit", *limit)
    wait_until(lambda: state(job).restarts == 1 and state(job).state == "RUNNING", PATIENCE, "the restart")
    steps = read_stops(folder_of(root), job).steps
    assert f"stopped by SIGUSR1 after step {steps[0]}" in log_of(root, job)
    wait_until(lambda: "trained" in log_of(root, job).partition("stopped by")[2], PATIENCE, "the second start")
    assert main(["slurm", "cancel", "all", "--output_root", str(root)]) == 0
    ended(job)
    assert state(job).state == "CANCELLED"


def test_a_mistake_keeps_its_exit_code(tmp_path: Path) -> None:
    root = tmp_path / "out"
    words = settings(tmp_path, 3)
    (tmp_path / "vision_flan" / "images_191task_1k" / "fake_0.png").unlink()
    job = submit(BASE, root, *words, "--verb", "fit")
    ended(job)
    assert read_stops(folder_of(root), job).ended == 2
    assert state(job).state == "FAILED"
    assert "fake_0.png" in log_of(root, job)
