"""What a run cost: recorded by tuning, shown by the report, and empty where it was not recorded."""

import json
from pathlib import Path

import pytest
import torch

from data_modules.vsr import VSR
from experiments.runs import peak_memory, tuning
from experiments.runs.peak_memory import peak_resident_bytes
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.report.page import cost as report_cost
from lightning_m2pt.report.page.cost import cost_table
from lightning_m2pt.runs.evaluated import Group, grouped, read_run
from tests.support.answers.evaluated_folders import vsr_questions
from tests.support.answers.report_folders import LENGTHS, write_tuned
from tests.support.small_experiment import small_words

MEBIBYTE = 1024**2


def test_the_names_that_are_read_are_those_that_are_written():
    written = (tuning.COMPLETED, tuning.MEMORY, peak_memory.PROCESS, peak_memory.GPU)
    assert written == (report_cost.COMPLETED, report_cost.MEMORY, report_cost.PROCESS, report_cost.GPU)


def resident_bytes() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("status_file", [peak_memory.STATUS_FILE, Path("not/there")], ids=["kernel", "getrusage"])
def test_the_peak_stays_when_the_memory_is_given_back(monkeypatch, status_file):
    monkeypatch.setattr(peak_memory, "STATUS_FILE", status_file)
    before, size = resident_bytes(), 200 * MEBIBYTE
    taken = bytearray(b"x") * size
    assert len(taken) == size
    del taken
    assert peak_resident_bytes() > before + 0.9 * size


def test_a_gpu_has_a_peak_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: {"cuda:1": 7}[str(device)])
    assert peak_memory.peak_memory(torch.device("cuda:1"))["gpu"] == 7
    assert set(peak_memory.peak_memory(torch.device("cpu"))) == {"process"}


def test_train_records_the_peak_beside_the_seconds_and_says_it(tmp_path, capfd):
    VSR.write_fake(tmp_path / "vsr")
    settings = {"root": str(tmp_path / "vsr"), "template": "vicuna_v1", "batch_size": 4, "max_new_tokens": 2}
    sets = json.dumps([{"class_path": "data_modules.vsr.VSR", "init_args": settings}])
    words = ["train", *small_words(tmp_path, steps=1), "--benchmarks", sets]
    assert main(words) == ExitCode.DONE
    (run,) = (tmp_path / "outputs" / "m2pt_base").iterdir()
    recorded = json.loads((run / "run.json").read_text())["completed"]["peak_memory_bytes"]
    assert set(recorded) == {"process"}
    assert 50 * MEBIBYTE < recorded["process"] <= peak_resident_bytes()
    assert json.loads((run / "results.json").read_text())["peak_memory_bytes"] == {"tuning": recorded}
    assert f"memory       {recorded['process'] / 1024**3:.2f} GiB process at most" in capfd.readouterr().out
    record = json.loads((run / "run.json").read_text())
    del record["completed"]["peak_memory_bytes"]
    (run / "run.json").write_text(json.dumps(record))
    assert main(words) == ExitCode.DONE  # as a run of before
    assert "at most" not in capfd.readouterr().out
    assert json.loads((run / "results.json").read_text())["peak_memory_bytes"] == {"tuning": None}


def with_memory(run: Path, memory: dict[str, int]) -> None:
    record = json.loads((run / "run.json").read_text())
    record["completed"]["peak_memory_bytes"] = memory
    (run / "run.json").write_text(json.dumps(record))


def groups_of(*runs: Path) -> list[Group]:
    return grouped([read_run(run) for run in runs])


def test_the_table_shows_what_was_recorded_and_nothing_for_older_runs(tmp_path):
    runs = [
        write_tuned(tmp_path, "m2pt_base", "m2pt", 0, 0.8, LENGTHS, vsr=vsr_questions(4)),
        write_tuned(tmp_path, "m2pt_base", "m2pt", 1, 0.8, LENGTHS, vsr=vsr_questions(4)),
        write_tuned(tmp_path, "lora_base", "lora", 0, 0.8, {}, vsr=vsr_questions(4)),
        write_tuned(tmp_path, "full", "full", 0, 0.8, {}, vsr=vsr_questions(4)),
    ]
    table = cost_table(groups_of(*runs))
    assert not [column for column in table.columns if "memory" in column.title]
    assert "memory was not recorded" in table.notes
    with_memory(runs[0], {"process": 3 * 1024**3})
    with_memory(runs[1], {"process": 2 * 1024**3, "gpu": 512 * MEBIBYTE})
    (runs[3] / "metrics.csv").write_text(f"step,train/loss,cuda:0/allocated_bytes.all.peak\n1,2.0,{1024**3}\n")
    table = cost_table(groups_of(*runs))
    titles = [column.title for column in table.columns]
    assert titles[-2:] == ["peak memory, GiB", "peak GPU memory, GiB"]
    shown = {row[0]: row[-2:] for row in table.rows}
    assert shown == {"m2pt_base": ("2.00 to 3.00", "0.50"), "lora_base": ("", ""), "full": ("", "1.00")}
    assert {len(row) for row in table.rows} == {len(titles)}
    assert table.records[0]["peak_process_memory_gib"] == [3.0, 2.0]
    assert table.records[1]["peak_process_memory_gib"] == []
    assert "memory was not recorded" not in table.notes


def test_minutes_of_resumed_runs_are_left_out(tmp_path):
    runs = [write_tuned(tmp_path, "m2pt_base", "m2pt", seed, 0.8, LENGTHS, vsr=vsr_questions(4)) for seed in (0, 1)]
    for run, seconds, starts in ((runs[0], 240.0, 1), (runs[1], 12.0, 2)):
        record = json.loads((run / "run.json").read_text())
        record["completed"]["seconds"], record["made_with"] = seconds, [{}] * starts
        (run / "run.json").write_text(json.dumps(record))
    table = cost_table(groups_of(*runs))
    assert table.rows[0][1:3] == ("2", "4.0")
    assert table.records[0]["minutes"] == [4.0]
    assert any("1 of 2 runs started more than once" in note for note in table.notes)
