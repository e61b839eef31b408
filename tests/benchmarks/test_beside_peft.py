"""The peers of the real pair, on a small stand-in for it: the same model, the same numbers, the same answers."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.report.beside_peft import OURS, THEIRS, beside_peft_lines
from benchmarks.training.on_real_pair import beside_peft
from benchmarks.training.on_real_pair.peers import LEARNING_RATE, inputs_of
from benchmarks.training.peers import UnequalLossesError
from data_modules.pope import POPE
from data_modules.vision_flan import VisionFlan
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID
from lightning_m2pt.testing.random_backbone import random_batch
from lightning_m2pt.tuning.module import TuningModule
from tests.support.towers.real_pair import store_real_pair

PROJECTOR = "smollm2_dinov2/aligned/projector/model.safetensors"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    store_real_pair(folder)
    VisionFlan.write_fake(folder / "data")
    POPE.write_fake(folder / "pope")
    return folder


def words_of(models: Path, chosen: list[str]) -> list[str]:
    return [
        *(*chosen, *beside_peft.ONE_PROCESS, "--data.root", str(models / "data"), "--data.validation_file", "null"),
        *("--data.questions_per_sample", "1", "--model.backbone.projector", str(models / PROJECTOR)),
    ]


@pytest.mark.parametrize("name", beside_peft.METHODS)
def test_first_losses_are_those_of_peft(models: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("M2PT_MODELS", str(models))
    chosen = [*beside_peft.METHODS[name], "--model.optimizer.learning_rate", "1e-4", "--benchmarks", "[]"]
    losses = beside_peft.compared_losses(words_of(models, chosen), beside_peft.folder_of_pair())
    assert losses[OURS] == pytest.approx(losses[THEIRS], rel=1e-5)
    assert losses[OURS][0] != losses[OURS][1]


def test_timed_steps_are_whole_and_validate_nothing(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2PT_MODELS", str(models))
    read = []
    monkeypatch.setattr(TuningModule, "validation_step", lambda *_: read.append("a batch"))
    micro, forward = [], TuningModule.training_step

    def counted(module, batch, index):
        micro.append(len(batch.input_ids))
        return forward(module, batch, index)

    monkeypatch.setattr(TuningModule, "training_step", counted)
    words = [*beside_peft.METHODS["LoRA, r = 8"], *beside_peft.ONE_PROCESS, "--benchmarks", "[]"]
    data = ["--data.root", str(models / "data"), "--data.questions_per_sample", "1", "--data.batch_size", "4"]
    data += ["--data.validation_file", "null", "--data.validation_fraction", "0.5"]
    projector = ["--data.micro_batch_size", "2", "--model.backbone.projector", str(models / PROJECTOR)]
    assert len(beside_peft.steps_of_ours([*words, *data, *projector], 3)) == 2
    assert read == []
    assert micro == [2] * 6


def test_both_sides_train_warmed_up_in_every_round(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2PT_MODELS", str(models))
    asked, trained = [], []
    steps_of_library = beside_peft.steps_of_library

    def ours(words: list[str], steps: int) -> list[tuple[float, float]]:
        asked.append(steps)
        return [(2.0, 2.5)] * (steps - 1)

    def theirs(tuned, batches, folder):
        trained.append(steps_of_library(tuned, batches, folder))
        return trained[-1]

    monkeypatch.setattr(beside_peft, "steps_of_ours", ours)
    monkeypatch.setattr(beside_peft, "steps_of_library", theirs)
    words = words_of(models, [*beside_peft.METHODS["LoRA, r = 8"], *beside_peft.RATE, "--benchmarks", "[]"])
    seconds = beside_peft.timed_steps([*words, "--data.batch_size", "2"], beside_peft.folder_of_pair(), 2, 2)
    assert asked == [3, 3]
    assert seconds[OURS] == [(2.0, 2.5)] * 4
    assert [len(steps) for steps in trained] == [3, 3]
    assert all(cpu > 0 and wall > 0 for steps in trained for cpu, wall in steps)
    assert seconds[THEIRS] == trained[0][1:] + trained[1][1:]  # the first of each round is the warm-up


def test_other_numbers_at_first_are_noticed(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2PT_MODELS", str(models))
    chosen = [*beside_peft.METHODS["prefix tuning, 10 rows"], "--model.optimizer.learning_rate", "1e-4"]
    tuned_by_peft = beside_peft.tuned_by_peft

    def one_off(library, method):
        tuned = tuned_by_peft(library, method)
        tuned.prompt_encoder["default"].embedding.weight.data[3] += 0.1
        return tuned

    monkeypatch.setattr(beside_peft, "tuned_by_peft", one_off)
    with pytest.raises(UnequalLossesError):
        beside_peft.compared_losses(words_of(models, [*chosen, "--benchmarks", "[]"]), beside_peft.folder_of_pair())


def test_answers_are_those_of_generate(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2PT_MODELS", str(models))
    settings = {"root": str(models / "pope"), "template": "native", "batch_size": 4, "max_new_tokens": 3}
    sets = json.dumps([{"class_path": "data_modules.pope.POPE", "init_args": settings}])
    chosen = ["--config", "experiments/frozen_smollm2.yaml", "--model.backbone.dtype", "float32", "--benchmarks", sets]
    monkeypatch.setattr(beside_peft, "QUESTIONS_AT_ONCE", 4)
    clocks = iter([(1.0, 10.0), (3.0, 15.0), (4.0, 20.0), (11.0, 21.0)])
    monkeypatch.setattr(beside_peft, "clocks", lambda: next(clocks))
    answered: list[dict[str, str]] = []
    for name in ("evaluated", "generated"):
        own = getattr(beside_peft, name)
        kept = lambda *given, own=own, **named: answered.append(own(*given, **named)) or answered[-1]  # noqa: E731
        monkeypatch.setattr(beside_peft, name, kept)
    found = beside_peft.timed_answers(words_of(models, chosen), beside_peft.folder_of_pair(), 6)
    assert (found["questions"], found["unlike"]) == (6, 0)
    assert found["seconds"] == {OURS: [2.0, 5.0], THEIRS: [7.0, 1.0]}
    assert len(answered[0]) == 6
    assert answered[0] == answered[1]  # every question, in two batches


def test_rows_are_laid_out_as_llava_reads_them() -> None:
    batch = random_batch(size=2, text=6, answer=2)
    right, left = (inputs_of(batch, 3, 7, on_the_left=side) for side in (False, True))
    assert right["input_ids"].shape == (2, 8)
    assert right["input_ids"][0, 1:4].tolist() == [7, 7, 7]
    assert not (right["input_ids"] == IMAGE_TOKEN_ID).any()
    assert right["attention_mask"].tolist() == [[1] * 8, [1] * 7 + [0]]
    assert left["attention_mask"].tolist() == [[1] * 8, [0] + [1] * 7]
    assert torch.equal(left["input_ids"][1, 1:], right["input_ids"][1, :-1])
    assert (right["labels"] != IGNORED_LABEL).sum() == batch.step_supervised_tokens


def test_a_missing_pair_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("M2PT_MODELS", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["beside_peft", "--output", str(tmp_path / "out.json")])
    with pytest.raises(SystemExit) as left:
        beside_peft.main()
    assert left.value.code == 2
    assert "the real pair is not there" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_stored_are_medians_of_steps_and_answers_of_both_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    steps = {OURS: [(1.0, 5.0), (2.0, 4.0), (9.0, 3.0)], THEIRS: [(3.0, 6.0), (4.0, 7.0), (4.0, 9.0)]}

    def timed_steps(words: list[str], folder: Path, rounds: int, number: int) -> dict[str, list[tuple[float, float]]]:
        asked.append(words)
        assert (folder, rounds, number) == (tmp_path, 4, 7)
        return steps

    def timed_answers(words: list[str], folder: Path, number: int) -> list[object]:
        return [number, words[-1], folder == tmp_path]

    monkeypatch.setattr(beside_peft, "folder_of_pair", lambda: tmp_path)
    monkeypatch.setattr(beside_peft, "machine", dict)
    monkeypatch.setattr(beside_peft, "compared_losses", lambda words, folder: [words, folder == tmp_path])
    monkeypatch.setattr(beside_peft, "timed_steps", timed_steps)
    monkeypatch.setattr(beside_peft, "timed_answers", timed_answers)
    numbers = ["--rounds", "4", "--steps", "7", "--questions", "5", "--compared", "2"]
    own = ["--data.seed", "3"]
    monkeypatch.setattr(sys, "argv", ["beside_peft", *numbers, "--output", str(tmp_path / "out.json"), *own])
    beside_peft.main()
    content = json.loads((tmp_path / "out.json").read_text())
    assert (content["answers_float32"], content["answers"]) == ([2, "float32", True], [5, "3", True])
    assert content["rounds"] == 4
    assert list(content["steps"]) == list(beside_peft.METHODS)
    for (name, found), words in zip(content["steps"].items(), asked, strict=True):
        assert words == [
            *(*beside_peft.METHODS[name], "--model.optimizer.learning_rate", str(LEARNING_RATE)),
            *("--trainer.devices", "1", "--data.batch_size", "8", *own),
        ]
        assert found["losses_float32"] == [words, True]
        assert found["seconds"] == {OURS: [2.0, 4.0], THEIRS: [4.0, 7.0]}
        assert found["all"] == {side: list(map(list, each)) for side, each in steps.items()}


def test_lines_say_ratios_and_what_was_aimed_at() -> None:
    made = {"date": "d", "processor": "p", "instruction_set": "i", "cores": 2, "threads": 1, "device": "none"}
    content = {
        "made_with": made | {"versions": {"python": "3"}},
        "rounds": 1,
        "steps": {
            name: {
                "losses_float32": {OURS: [2.0, 1.0], THEIRS: [2.0, 1.001]},
                "seconds": {OURS: [2.0, 3.0], THEIRS: [seconds, 9.0]},
                "all": {OURS: [[2.0, 3.0]] * 2, THEIRS: [[seconds, 9.0]] * 2},
            }
            for name, seconds in (("fast", 3.0), ("slow", 2.9))
        },
    }
    lines = "\n".join(beside_peft_lines(content))
    assert "| fast | 2.00 | 3.00 | 1.50x | at least 1.5x | met | 3.0 / 9.0 | 1e-03 |" in lines
    assert "| slow | 2.00 | 2.90 | 1.45x | at least 1.5x | **missed** |" in lines
    assert "**Preliminary:** 2 steps of each in 1 round," in lines
    assert "Answers have not been measured yet." in lines
    exact = {"questions": 8, "unlike": 0}
    answers = {"questions": 24, "unlike": 3, "seconds": {OURS: [2.0, 1.0], THEIRS: [6.0, 1.0]}}
    lines = " ".join(beside_peft_lines(content | {"answers": answers, "answers_float32": exact}))
    assert "12.0 answers a CPU second by `m2pt evaluate`, 4.0 by `generate` in batches: 3.00x" in lines
    assert "0 of 8 answers differ, in bfloat16 3 of 24" in lines
