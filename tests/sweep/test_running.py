"""Running a sweep: what is complete is skipped, failures do not stop it, and a kill at any moment changes nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.sweep.file import read_sweep
from experiments.sweep.jobs import SweepSettings, cells
from experiments.sweep.record import Entry, State, SweepRecord
from experiments.sweep.status import JobStatus, time_left
from tests.support.runs.sweep_driver import main

ROOT = Path(__file__).parents[2]
KILLS = 6


@pytest.fixture(autouse=True)
def from_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def write_sweep(folder: Path, seeds=(0, 1), **config) -> Path:
    """Writes two experiments and a sweep of three variants."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("one", "two"):
        (folder / f"{name}.yaml").write_text(
            json.dumps({"steps": 4, "seconds_a_step": 0.03, "best_rate": 0.01} | config)
        )
    content = {
        "seeds": list(seeds),
        "cells": [
            {"label": "one", "config": str(folder / "one.yaml")},
            {"label": "changed", "config": str(folder / "one.yaml"), "arguments": {"model.method.visual_length": 0}},
            {"label": "two", "config": str(folder / "two.yaml"), "seeds": [7]},
        ],
    }
    path = folder / "tiny.yaml"
    path.write_text(json.dumps(content, indent=1))
    return path


def words_for(path: Path, *more: str) -> list[str]:
    return ["run", str(path), "--output_root", str(path.parent / "out"), "--jobs", "2", *more]


def start(path: Path, *more: str) -> subprocess.Popen[bytes]:
    log = (path.parent / "driver.log").open("ab")
    command = [sys.executable, "-m", "tests.support.runs.sweep_driver", *words_for(path, *more)]
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def table(path: Path) -> str:
    return (path.parent / "out" / "sweeps" / "tiny" / "table.json").read_text().replace(str(path.parent), "HERE")


def starts(path: Path) -> dict[str, int]:
    """Returns how often every run was started; none was started twice at once."""
    runs = sorted((path.parent / "out").glob("*/small*"))
    assert not [run for run in runs if (run / "doubled").exists()]
    return {run.name: len(json.loads((run / "run.json").read_text())["made_with"]) for run in runs}


def record(path: Path) -> SweepRecord:
    return SweepRecord(path.parent / "out" / "sweeps" / "tiny", path.parent / "out" / "sweeps" / ".locks")


def jobs_of(path: Path):
    return cells(read_sweep(path), SweepSettings(output_root=path.parent / "out"))


def test_a_sweep_runs_every_cell_once_and_ends_with_a_table(tmp_path, capfd):
    path = write_sweep(tmp_path)
    assert main(words_for(path)) == 0
    assert set(starts(path).values()) == {1}
    assert len(starts(path)) == 5
    rows = {row["label"]: row for row in json.loads(table(path))["rows"]}
    assert list(rows) == ["frozen", "one", "changed", "two"]
    assert rows["one"]["values"] == [50.0, 53.0]
    assert rows["one"]["mean"] == 51.5
    assert rows["one"]["standard_deviation"] == pytest.approx(2.1213, abs=1e-4)
    assert rows["frozen"]["mean"] == 45.0
    assert rows["two"]["standard_deviation"] is None
    shown = capfd.readouterr().out
    assert "51.5 ± 2.1" in shown
    assert "done       one, seed 0" in shown


def test_a_complete_sweep_starts_nothing(tmp_path):
    path = write_sweep(tmp_path)
    assert main(words_for(path)) == 0
    before = table(path)
    assert main(words_for(path)) == 0
    assert set(starts(path).values()) == {1}
    assert table(path) == before


def test_a_failed_cell_stops_no_other_and_is_tried_again(tmp_path, capfd):
    path = write_sweep(tmp_path, failing={"1": "ValueError: the [picture] is upside down"})
    assert main(words_for(path)) == 1
    failed = [job for job in jobs_of(path) if record(path).state(job) == State.FAILED]
    assert [job.title for job in failed] == ["one, seed 1", "changed, seed 1"]
    assert record(path).read(failed[0]).error == "ValueError: the [picture] is upside down"
    assert main(["status", str(path), "--output_root", str(tmp_path / "out")]) == 0
    assert "seed 1: ValueError: the [picture] is upside down" in capfd.readouterr().out
    write_sweep(tmp_path)  # another content of the files: other jobs, whose runs are found
    assert main(words_for(path)) == 0
    assert len(json.loads(table(path))["rows"][1]["values"]) == 2


def test_exit_code_0_without_results_is_not_done(tmp_path):
    path = write_sweep(tmp_path, seeds=[0], writes_nothing=True)
    assert main(words_for(path)) == 1
    assert {record(path).state(job) for job in jobs_of(path)} == {State.FAILED}


def test_a_cell_whose_results_are_gone_is_not_done(tmp_path):
    path = write_sweep(tmp_path)
    assert main(words_for(path)) == 0
    (results,) = (tmp_path / "out" / "two").glob("*/results.json")
    results.unlink()
    two = next(job for job in jobs_of(path) if job.label == "two")
    assert record(path).state(two) == State.WAITING
    assert main(words_for(path)) == 0
    assert results.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"tuned": {"vsr": 3}, "frozen": {}}'], ids=str)
def test_a_cell_with_damaged_results_says_so_and_is_run_again(tmp_path, capfd, content):
    path = write_sweep(tmp_path)
    assert main(words_for(path)) == 0
    before = table(path)
    (results,) = (tmp_path / "out" / "two").glob("*/results.json")
    results.write_text(content)
    assert main(["status", str(path), "--output_root", str(tmp_path / "out")]) == 0
    shown = "".join(capfd.readouterr().out.split())
    assert "seed7:runsagain," in shown
    assert "results.json:damaged" in shown
    assert main(words_for(path)) == 0
    assert sorted(starts(path).values()) == [1, 1, 1, 1, 2]
    assert table(path) == before


def test_a_cell_with_a_damaged_record_stops_no_other(tmp_path, capfd):
    path = write_sweep(tmp_path)
    assert main(words_for(path)) == 0
    (damaged,) = (tmp_path / "out" / "two").glob("*/run.json")
    damaged.write_text("")
    assert main(["status", str(path), "--output_root", str(tmp_path / "out")]) == 0
    assert "run.json:1:thisisnotvalidJSON" in "".join(capfd.readouterr().out.split())
    assert main(words_for(path)) == 1
    states = {job.label: record(path).state(job) for job in jobs_of(path)}
    assert states == {"one": State.DONE, "changed": State.DONE, "two": State.FAILED}
    assert [row["label"] for row in json.loads(table(path))["rows"]] == ["frozen", "one", "changed"]


def test_a_stopped_sweep_keeps_the_table_of_what_is_complete(tmp_path):
    path = write_sweep(tmp_path, seeds=[0, 1])
    # One cell that is not done when the signal comes, however long that takes.
    (tmp_path / "two.yaml").write_text(json.dumps({"steps": 40, "seconds_a_step": 3.0, "best_rate": 0.01}))
    process = start(path)
    wait_until(lambda: any(record(path).state(job) == State.DONE for job in jobs_of(path)), 60)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 128 + signal.SIGINT
    done = [job for job in jobs_of(path) if record(path).state(job) == State.DONE]
    assert 0 < len(done) < len(jobs_of(path))
    rows = json.loads(table(path))["rows"]
    assert sorted(run for row in rows for run in row["runs"]) == sorted(
        str(Path(record(path).read(job).run)).replace(str(path.parent), "HERE") for job in done
    )


def test_sigterm_lets_cells_save_and_the_same_command_goes_on(tmp_path):
    path = write_sweep(tmp_path, seconds_a_step=0.3)
    process = start(path)
    wait_until(lambda: len(list((tmp_path / "out").glob("*/small*/metrics.csv"))) == 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    cut_off = [entry for job in jobs_of(path) if (entry := record(path).read(job)) is not None]
    assert {entry.state for entry in cut_off} == {State.CUT_OFF}
    assert {entry.exit_code for entry in cut_off} == {128 + signal.SIGTERM}
    assert start(path).wait(60) == 0
    assert sorted(starts(path).values()) == [1, 1, 1, 2, 2]
    steps = [len(file.read_text().splitlines()) - 1 for file in (tmp_path / "out").glob("*/small*/metrics.csv")]
    assert steps == [4] * 5


@pytest.mark.slow
def test_a_sweep_killed_again_and_again_ends_with_the_same_table(tmp_path):
    whole, cut = write_sweep(tmp_path / "whole", range(4)), write_sweep(tmp_path / "cut", range(4))
    assert main(words_for(whole)) == 0
    chance, killed = random.Random(0), 0
    for _ in range(KILLS):
        process = start(cut)
        seen = finished(cut)
        wait_until(lambda process=process, seen=seen: finished(cut) > seen or process.poll() is not None)
        time.sleep(chance.random() * 0.2)
        if process.poll() is None:
            process.kill()
            killed += 1
            process.wait()
    assert killed > 1
    assert start(cut).wait(60) == 0
    assert table(cut) == table(whole)
    assert len(starts(cut)) == 9


def test_two_sweeps_at_once_share_the_cells(tmp_path):
    path = write_sweep(tmp_path, seeds=range(3))
    both = [start(path), start(path)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert set(starts(path).values()) == {1}
    assert len(starts(path)) == 7


def test_a_cell_of_a_killed_sweep_goes_on_and_is_waited_for(tmp_path):
    path = write_sweep(tmp_path, seeds=[0], seconds_a_step=0.4)
    process = start(path)
    wait_until(lambda: len(list((tmp_path / "out").glob("*/small*/metrics.csv"))) == 2)
    process.kill()
    process.wait()
    job = jobs_of(path)[0]
    assert record(path).state(job) == State.RUNNING  # its process holds the lock
    assert main(words_for(path)) == 0
    starts(path)  # none doubled
    assert record(path).state(job) == State.DONE


def test_a_changed_configuration_is_not_run_under_the_old_ones_name(tmp_path):
    path = write_sweep(tmp_path, seconds_a_step=0.3)
    process = start(path)
    wait_until(lambda: (tmp_path / "out").exists())
    (tmp_path / "two.yaml").write_text(json.dumps({"steps": 2}))
    assert process.wait(60) == 1
    entries = [json.loads(file.read_text()) for file in (tmp_path / "out" / "sweeps" / "tiny" / "jobs").iterdir()]
    (failed,) = [entry for entry in entries if entry["state"] == "failed"]
    assert failed["label"] == "two"
    assert "has changed" in failed["error"]


def test_minutes_left_come_from_complete_cells_of_the_same_experiment_only(tmp_path):
    one, changed, two, one_more, *_ = jobs_of(write_sweep(tmp_path))
    done = Entry("one", "seed 0", [], "", State.DONE, started=1000.0, ended=1240.0, whole=True)
    running = Entry("one", "seed 1", [], "", State.CUT_OFF, started=1240.0)
    found = [
        JobStatus(one, State.DONE, done),
        JobStatus(one_more, State.RUNNING, running),
        JobStatus(changed, State.WAITING, None),
    ]
    left = time_left(found, at_a_time=2, now=1300.0)
    assert left.minutes == pytest.approx((180 + 240) / 2 / 60)
    assert left.unknown == ()
    left = time_left([*found, JobStatus(two, State.WAITING, None)], at_a_time=2, now=1300.0)
    assert left.unknown == ("two",)
    assert "more than 4" in left.text
    assert time_left(found, at_a_time=None, now=1300.0).minutes == pytest.approx((180 + 240) / 60)  # one runs now
    done.whole = False  # it was resumed: its seconds tell nothing
    assert time_left(found, at_a_time=2, now=1300.0).unknown == ("one", "changed")


def test_status_shows_the_step_of_running_cells(tmp_path, capfd):
    path = write_sweep(tmp_path, seeds=[0], seconds_a_step=0.5)
    process = start(path)
    wait_until(lambda: any("\n2," in file.read_text() for file in (tmp_path / "out").glob("one/*/metrics.csv")))
    assert main(["status", str(path), "--output_root", str(tmp_path / "out")]) == 0
    assert "of 4" in capfd.readouterr().out
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM


def finished(path: Path) -> int:
    return len(list((path.parent / "out").glob("*/*/results.json")))


def wait_until(happened, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_children_get_one_thread(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    path = write_sweep(tmp_path, seeds=[0])
    assert main(words_for(path)) == 0
    assert os.environ["OMP_NUM_THREADS"] == "7"
