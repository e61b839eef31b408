"""The kill harness sees what differs, hits what it aims at, and finds nothing in this version."""

import os
import random
from pathlib import Path

import pytest

from experiments.chaos import killer
from experiments.chaos.comparison import compare
from experiments.chaos.killer import place_of
from experiments.chaos.rounds import Rounds
from experiments.commands.parsers.chaos import argument_parser
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main


def chaos(folder: Path, *words: str) -> int:
    return main(["chaos", "--folder", str(folder), *words])


def test_killed_trainings_end_with_the_files_of_undisturbed_ones(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("experiments.chaos.rounds.WORKERS", (0,))
    code = chaos(tmp_path / "chaos", "--kills", "3", "--seed", "1")
    said = capsys.readouterr().out
    assert code == ExitCode.DONE, said
    assert "3 kills, 2 inside a write" in said
    assert "files of 1 killed runs" in said or "files of 2 killed runs" in said
    assert not (tmp_path / "chaos").exists()


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["fit", "train"])
def test_many_kills_with_loader_workers(tmp_path, capsys, verb):
    code = chaos(tmp_path / "chaos", "--kills", "20", "--seed", "2", "--verb", verb)
    assert code == ExitCode.DONE, capsys.readouterr().out


@pytest.mark.slow
def test_fresh_processes_are_killed_as_well(tmp_path, capsys):
    code = chaos(tmp_path / "chaos", "--kills", "3", "--fresh-processes", "--keep")
    assert code == ExitCode.DONE, capsys.readouterr().out
    assert (tmp_path / "chaos" / "undisturbed-0-workers").is_dir()


def small_tree(folder: Path) -> Path:
    run = folder / "m2pt_base" / "run"
    (run / "adapter").mkdir(parents=True)
    (run / "metrics.csv").write_text("step,loss\n1,2.0\n2,1.5\n")
    (run / "log.txt").write_text(str(folder))
    (run / "adapter" / "adapter_model.safetensors").write_bytes(b"\x00\x01")
    completed = f'{{"optimizer_steps": 2, "seconds": {len(str(folder))}}}'
    starts = f'[{{"host": "{folder.name}"}}, {{"host": "{folder.name}", "python": "3"}}]'
    (run / "run.json").write_text(f'{{"made_with": {starts}, "completed": {completed}}}')
    return run


def test_what_differs_is_named_and_what_may_differ_is_not(tmp_path):
    whole, cut = small_tree(tmp_path / "whole"), small_tree(tmp_path / "killed")
    assert not [one for one in compare(tmp_path / "whole", tmp_path / "killed") if one.problem]
    (cut / "metrics.csv").write_text("step,loss\n1,2.0\n2,1.6\n")
    (cut / "adapter" / "adapter_model.safetensors").write_bytes(b"\x00\x02")
    (cut / "run.json").write_text(
        (cut / "run.json").read_text().replace('"optimizer_steps": 2', '"optimizer_steps": 3')
    )
    (cut / ".metrics.csv.host-1.draft").write_text("st")
    (whole / "results.json").write_text("{}")
    problems = {one.name: one.problem for one in compare(tmp_path / "whole", tmp_path / "killed") if one.problem}
    assert problems == {
        "metrics.csv": "22 and 22 bytes, line 3 is the first that differs",
        "adapter/adapter_model.safetensors": "2 and 2 bytes, line 1 is the first that differs",
        "run.json": "other values",
        ".metrics.csv.host-1.draft": "left over",
        "results.json": "missing",
    }


def test_events_are_compared_as_a_reader_shows_them(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    def board(name: str, *starts: tuple[int | None, list[int]]) -> Path:
        folder = tmp_path / name / "m2pt_base" / "run" / "tb"
        for purged_from, steps in starts:
            with SummaryWriter(str(folder), purge_step=purged_from) as writer:
                for step in steps:
                    writer.add_scalar("loss", 1.0 / (step + 1), step)
        return tmp_path / name

    whole, cut, lost = (
        board("whole", (0, [0, 1, 2])),
        board("cut", (0, [0, 1, 2]), (2, [2])),
        board("lost", (0, [0, 2])),
    )
    assert [one.problem for one in compare(whole, cut)] == [""]
    assert [one.problem for one in compare(whole, lost)] == ["other events"]


def test_a_run_that_does_not_end_well_counts_as_different(tmp_path, monkeypatch):
    rounds = Rounds(tmp_path, "fit", random.Random(0), fresh=False)
    monkeypatch.setattr(rounds, "start", lambda workers, plan: ended(rounds, code=3))
    rounds.log.write_text("error: disk full\n")
    rounds.killed_run(0, 1, 1.0, 10)
    assert rounds.tally.different == {("the command itself", "exit code 3: error: disk full"): 1}


def test_nothing_is_killed_by_a_number_that_was_given_back(tmp_path, monkeypatch):
    happened = []
    kill, wait = os.kill, killer.ForkedProcess.ended
    monkeypatch.setattr(killer, "run", lambda *_: 0)
    monkeypatch.setattr(killer.os, "killpg", lambda *_: happened.append("killed"))
    monkeypatch.setattr(killer.os, "kill", lambda *given: happened.append("killed") or kill(*given))
    monkeypatch.setattr(killer.ForkedProcess, "ended", lambda self: happened.append("ended") or wait(self))
    outcome = killer.follow([], tmp_path, killer.KillPlan(), tmp_path / "log.txt", fresh=False)
    assert outcome.code == 0
    assert happened == ["killed", "ended"]


def ended(rounds: Rounds, code: int):
    from experiments.chaos.killer import Outcome

    rounds.outputs.mkdir(exist_ok=True)
    return Outcome(code=code)


def test_a_folder_with_something_in_it_and_no_kills_are_refused(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert chaos(tmp_path) == ExitCode.BAD_INPUT
    assert "this folder is not empty" in capsys.readouterr().err
    assert chaos(tmp_path / "new", "--kills", "0") == ExitCode.BAD_INPUT
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert "copy of this process" in " ".join(argument_parser().format_help().split())


@pytest.mark.parametrize(
    ("write", "place"),
    [
        ("os.rename m2pt_base/m2pt-seed0-08e6a6ad/.run.json.vm-71.draft", "os.rename .run.json.vm-*.draft"),
        (
            "os.mkdir m2pt_base/m2pt-seed0-08e6a6ad/checkpoints/writing-step=000004",
            "os.mkdir checkpoints/writing-step=*",
        ),
        ("open m2pt_base/.m2pt-seed0-08e6a6ad.lock", "open .m*pt-seed*-*.lock"),
    ],
)
def test_places_are_named_alike_in_all_runs(write, place):
    assert place_of(write) == place
