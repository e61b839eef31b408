"""The real pair's step by type, attention and threads, on a small stand-in for the pair."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.report.other_speeds import step_settings_lines
from benchmarks.training.on_real_pair import step_settings
from benchmarks.training.on_real_pair.step_settings import FUSED, NUMERICS, PRODUCTS, SHARINGS, Numerics, Sharing
from data_modules.vision_flan import VisionFlan
from lightning_m2pt.prompts import past_rows, plain_attention
from tests.support.towers.real_pair import store_real_pair

PROJECTOR = "smollm2_dinov2/aligned/projector/model.safetensors"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    store_real_pair(folder)
    VisionFlan.write_fake(folder / "data")
    return folder


def words_of(models: Path) -> list[str]:
    return [
        *("--data.root", str(models / "data"), "--data.validation_file", "null", "--benchmarks", "[]"),
        *("--model.method.init_text", "what color is it ?", "--model.method.textual_length", "5"),
        *("--data.questions_per_sample", "1", "--model.backbone.projector", str(models / PROJECTOR)),
    ]


@pytest.mark.parametrize("chosen", NUMERICS)
def test_a_setting_computes_with_what_it_names(models: Path, monkeypatch: pytest.MonkeyPatch, chosen: Numerics) -> None:
    monkeypatch.setenv("M2PT_MODELS", str(models))
    monkeypatch.setattr(plain_attention, "MOST_KEPT", plain_attention.MOST_KEPT)  # set back behind the test
    types = []

    def counted(query, *others):
        types.append(str(query.dtype))
        return plain_attention.plain_attention(query, *others)

    monkeypatch.setattr(past_rows, "plain_attention", counted)
    found = step_settings.measured_here(chosen, words_of(models), 2)
    assert len(found["seconds"]) == 2  # the first step is none of them
    assert found["first_loss"] > 0
    assert bool(types) == (chosen.attention == PRODUCTS)
    assert set(types) <= {f"torch.{chosen.dtype}"}


def test_a_setting_is_measured_in_processes_of_its_own(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2PT_MODELS", str(models))
    both = step_settings.measured(Numerics("float32", FUSED), Sharing(2, 1), words_of(models), 1)
    assert [len(each["seconds"]) for each in both] == [1, 1]
    assert both[0]["first_loss"] == both[1]["first_loss"]
    with pytest.raises(RuntimeError, match="failed"):
        step_settings.measured(Numerics("float33", FUSED), Sharing(1, 1), words_of(models), 1)


@pytest.mark.parametrize("sharing", SHARINGS)
def test_processes_and_their_threads_are_those_of_the_sharing(
    monkeypatch: pytest.MonkeyPatch, sharing: Sharing
) -> None:
    threads = []

    def started(command: list[str], env: dict[str, str]) -> SimpleNamespace:
        threads.append(env["OMP_NUM_THREADS"])
        assert command[command.index("--one") + 1 :][:4] == ["bfloat16", PRODUCTS, "--steps", "3"]
        assert command[-1] == "a word"
        Path(command[command.index("--output") + 1]).write_text(json.dumps({"number": len(threads)}))
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(step_settings, "subprocess", SimpleNamespace(Popen=started))
    found = step_settings.measured(Numerics("bfloat16", PRODUCTS), sharing, ["a word"], 3)
    assert threads == [str(sharing.threads)] * sharing.processes
    assert [each["number"] for each in found] == list(range(1, sharing.processes + 1))


def test_rows_are_medians_of_all_rounds_and_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measured(chosen: Numerics, sharing: Sharing, words: list[str], steps: int) -> list[dict[str, Any]]:
        second = 2.0 * ((chosen, sharing) in asked)  # round
        asked.append((chosen, sharing))
        loss = 2.0 if chosen.dtype == "float32" else 2.03
        return [
            {"first_loss": loss, "seconds": [[1.0 + second, 2.0], [5.0 + second, 4.0 + each], [9.0, 8.0]]}
            for each in (0.0, 2.0)[: sharing.processes]
        ]

    monkeypatch.setattr(step_settings, "measured", measured)
    rows = step_settings.settings_rows([], rounds=2, steps=3)
    every = [(chosen, sharing) for chosen in NUMERICS for sharing in SHARINGS]
    assert asked == every * 2
    # Of 1, 5, 9 and 3, 7, 9 CPU seconds; of the clock's 2, 4, 8 twice, and with a second process 2, 6, 8 twice.
    assert [(row["cpu_seconds"], row["wall_seconds"]) for row in rows] == [(6.0, 4.0), (6.0, 4.0), (6.0, 5.0)] * 3
    assert [row["steps_a_second"] for row in rows] == [0.25, 0.25, 0.4] * 3


@pytest.mark.parametrize(("loss", "dtype"), [(2.05, "bfloat16"), (2.001, "float32"), (float("nan"), "bfloat16")])
def test_another_loss_is_noticed(loss: float, dtype: str) -> None:
    rows = [
        {"dtype": "float32", "attention": FUSED, "first_loss": 2.0},
        {"dtype": dtype, "attention": FUSED, "first_loss": loss},
    ]
    with pytest.raises(step_settings.UnequalStepError, match=dtype):
        step_settings.require_equal_losses(rows)


def test_one_setting_is_measured_for_the_process_that_asked_and_else_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_settings, "folder_of_pair", lambda: tmp_path)
    monkeypatch.setattr(step_settings, "machine", lambda: "this one")
    monkeypatch.setattr(step_settings, "measured_here", lambda *given: ["here", *given])
    monkeypatch.setattr(step_settings, "settings_rows", lambda *given: [list(given)])
    output, found = tmp_path / "out.json", []
    for chosen in (["--one", "bfloat16", PRODUCTS], ["--rounds", "2"]):
        own = ["--steps", "5", "--output", str(output), "--data.seed", "3"]
        monkeypatch.setattr(sys, "argv", ["step_settings", *chosen, *own])
        step_settings.main()
        found.append(json.loads(output.read_text()))
    words = ["--data.seed", "3"]
    assert found == [
        ["here", ["bfloat16", PRODUCTS], words, 5],
        {"made_with": "this one", "rounds": 2, "steps": 5, "rows": [[words, 2, 5]]},
    ]


def test_lines_say_every_figure() -> None:
    made = {"date": "d", "processor": "p", "instruction_set": "i", "cores": 2, "threads": 1, "device": "none"}
    row = Numerics("bfloat16", PRODUCTS)._asdict() | Sharing(2, 1)._asdict()
    row |= {"first_loss": 4.12344, "cpu_seconds": 1.414, "wall_seconds": 1.5, "steps_a_second": 1.3333}
    content = {"made_with": made | {"versions": {"python": "3"}}, "rounds": 2, "steps": 6, "rows": [row]}
    lines = " ".join(step_settings_lines(content))
    assert "| bfloat16 | matrix products | 2 of 1 | 1.41 | 1.50 | 1.33 | 4.1234 |" in lines
    assert "**Preliminary:** Medians of 12 steps of each process in 2 rounds; steps/s of" in lines
    assert "Preliminary" not in " ".join(step_settings_lines(content | {"rounds": 3}))
