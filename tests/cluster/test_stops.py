"""Back into the queue once a stop, as long as the job gets on, and never for ever."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.cluster.records import Stops, Submission, folder_of, read_stops, write_stops, write_submission
from experiments.cluster.runs import CHECKPOINT, CHECKPOINTS, RunOfJob, runs_by_job
from experiments.cluster.stops import MOST_RESTARTS, after, reason_to_stop
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.storage import checkpoint
from lightning_m2pt.system.slurm_job import slurm_job_of
from lightning_m2pt.system.stop_signals import EXIT_CODE_BASE
from tests.support.slurm_programs import SlurmPrograms

JOB = {"SLURM_JOB_ID": "12"}
TUNING = Submission("12", "a", "train", "2026-01-01T00:00:00+00:00", "", "", "", tunes=True, labels={"": "train a"})


def begun(root: Path, *steps: int, job: str = "12", **record: object) -> Path:
    """Writes as much of a run as a job looks at."""
    run = root / "a" / "m2pt-seed0-0123"
    run.mkdir(parents=True, exist_ok=True)
    (run / "run.json").write_text(json.dumps({"made_with": [{"slurm_job": "1"}, {"slurm_job": job}], **record}))
    (run / "config.yaml").write_text(json.dumps({"trainer": {"max_steps": 100}}))
    for step in steps:
        (run / CHECKPOINTS / f"step={step:06d}").mkdir(parents=True, exist_ok=True)
    return run


def run_at(step: int, *, is_tuned: bool = False) -> RunOfJob:
    return RunOfJob(Path("run"), step, 100, is_tuned)


def test_a_job_goes_on_while_it_gets_on(tmp_path: Path, slurm: SlurmPrograms) -> None:
    for stop, step in enumerate((10, 20, 30)):
        begun(tmp_path, step)
        assert "back in the queue" in after(138, tmp_path, {**JOB, "SLURM_RESTART_COUNT": str(stop)})
        assert slurm.asked("scontrol") == [["requeue", "12"]] * (stop + 1)
    assert read_stops(folder_of(tmp_path), "12") == Stops("12", [10, 20, 30])
    assert after(0, tmp_path, {**JOB, "SLURM_RESTART_COUNT": "3"}) == ""
    assert read_stops(folder_of(tmp_path), "12") == Stops("12", [10, 20, 30], ended=0)


def test_a_job_that_does_not_get_on_is_given_back(tmp_path: Path, slurm: SlurmPrograms) -> None:
    begun(tmp_path, 10)
    after(143, tmp_path, JOB)
    said = after(143, tmp_path, {**JOB, "SLURM_RESTART_COUNT": "1"})
    assert "not got beyond step 10" in said
    assert len(slurm.asked("scontrol")) == 1
    assert read_stops(folder_of(tmp_path), "12").ended == 143


def test_a_first_start_forgets_another_job_of_the_same_number(tmp_path: Path, slurm: SlurmPrograms) -> None:
    write_stops(folder_of(tmp_path), Stops("12", [10], ended=138))
    begun(tmp_path, 10)
    after(138, tmp_path, JOB)
    assert read_stops(folder_of(tmp_path), "12") == Stops("12", [10])


@pytest.mark.parametrize(
    ("stops", "run", "restarts", "goes_on"),
    [
        ([], None, 0, True),
        ([None], None, 1, True),
        ([None, None], None, 2, False),
        ([None, None], run_at(0), 2, True),
        ([0], run_at(0), 1, False),
        ([10], run_at(11), 1, True),
        ([100], run_at(100, is_tuned=True), 1, True),
        ([100, 100, 100], run_at(100, is_tuned=True), 3, True),
        (list(range(MOST_RESTARTS)), run_at(99), MOST_RESTARTS, False),
        ([], run_at(99), MOST_RESTARTS, False),
        (list(range(MOST_RESTARTS)), run_at(99), 0, False),
        ([0, 10], run_at(10), 2, False),
    ],
)
def test_when_a_job_is_put_back(stops: list[int | None], run: RunOfJob | None, restarts: int, goes_on: bool) -> None:
    assert (reason_to_stop(Stops("12", stops), TUNING, run, restarts) == "") == goes_on


def test_a_job_that_only_answers_needs_no_run() -> None:
    assert reason_to_stop(Stops("12", [None, None]), replace(TUNING, tunes=False), None, 2) == ""


def test_a_stop_is_noted_before_slurm_is_asked_and_ends_this_process(tmp_path: Path, slurm: SlurmPrograms) -> None:
    begun(tmp_path, 10)
    slurm.answer("scontrol", "slurm_requeue error: gone\n", 1)
    with pytest.raises(EnvironmentFailure):
        after(138, tmp_path, JOB)
    assert read_stops(folder_of(tmp_path), "12").steps == [10]


def test_a_job_that_only_answers_is_counted_alone() -> None:
    assert reason_to_stop(Stops("12", [None] * 10), None, None, 10) == ""


def test_what_slurm_does_not_take_back_is_said(tmp_path: Path, slurm: SlurmPrograms) -> None:
    slurm.answer("scontrol", "Requested operation is presently disabled for job 12", 1)
    with pytest.raises(EnvironmentFailure, match="presently disabled"):
        after(138, tmp_path, JOB)


def test_outside_of_a_job_nothing_is_put_back(tmp_path: Path) -> None:
    for environment in ({}, {**JOB, "SLURM_RESTART_COUNT": "x"}):
        with pytest.raises(BadInputError, match="no job of SLURM's"):
            after(138, tmp_path, environment)


def test_a_run_is_the_jobs_that_worked_in_it_last(tmp_path: Path) -> None:
    run = begun(tmp_path, 5, 20)
    (run / CHECKPOINTS / "writing-step=000030").mkdir()
    damaged = tmp_path / "b" / "run"
    damaged.mkdir(parents=True)
    (damaged / "run.json").write_text("{")
    assert runs_by_job(tmp_path) == {"12": RunOfJob(run, 20, 100, is_tuned=False)}
    begun(tmp_path, completed={"seconds": 1})
    assert runs_by_job(tmp_path)["12"].is_tuned


def test_the_submissions_own_folder_of_runs_counts(tmp_path: Path, slurm: SlurmPrograms) -> None:
    begun(tmp_path / "elsewhere", 7)
    submission = Submission(**{**vars(TUNING), "output_root": str(tmp_path / "elsewhere")})
    write_submission(folder_of(tmp_path), submission)
    after(138, tmp_path, JOB)
    assert read_stops(folder_of(tmp_path), "12").steps == [7]


def test_an_element_looks_in_the_folder_of_runs_of_its_array(tmp_path: Path, slurm: SlurmPrograms) -> None:
    begun(tmp_path / "elsewhere", 7, job="12_3")
    array = replace(TUNING, output_root=str(tmp_path / "elsewhere"), labels={"3": "a, seed 3"})
    write_submission(folder_of(tmp_path), array)
    after(138, tmp_path, {"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"})
    assert read_stops(folder_of(tmp_path), "12_3").steps == [7]


def test_the_page_says_how_often_a_job_goes_back() -> None:
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    assert f"It goes back at most {MOST_RESTARTS} times, and not when it was stopped twice" in page


def test_the_job_of_an_element_is_not_the_arrays() -> None:
    """Of an array of the number 4 the last element has the number 4 itself."""
    element = {"SLURM_JOB_ID": "4", "SLURM_ARRAY_JOB_ID": "4", "SLURM_ARRAY_TASK_ID": "3"}
    first = {**element, "SLURM_ARRAY_TASK_ID": "0"}
    assert [slurm_job_of(each) for each in ({}, JOB, element, first)] == [None, "12", "4_3", "4_0"]


def test_names_that_stand_apart_from_torch_are_those_beside_it() -> None:
    assert CHECKPOINT.pattern == checkpoint.STEP_FOLDER.pattern
    from experiments.runs.training import checkpoints_folder

    assert checkpoints_folder(Path("run")).name == CHECKPOINTS
    assert EXIT_CODE_BASE == 128
