"""The GPU script: every part at a tiny size on the CPU, parts that are cut off, and its tables."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.report.gpu_tables import NOT_MEASURED, gpu_lines
from benchmarks.training import gpu_peers  # noqa: F401  (parts run in forks of this process, which has peft then)
from benchmarks.training.flop_formula import ideal_step
from benchmarks.training.inputs import random_backbone
from benchmarks.training.lengths import LENGTHS, fixed_lengths, ideal_flops, padding_share
from benchmarks.training.own_step import RUNGS
from benchmarks.training.peers import CHARITABLE, PUBLISHED
from benchmarks.training.sizes import GATE
from lightning_m2pt.backbones.quantised import QuantisedLinear
from lightning_m2pt.errors import ExitCode
from tests.support.ranks import on_ranks

TINY = gpu.setting_of("tiny", "cpu")
STEPS = [pytest.param(name, marks=[pytest.mark.slow] * (name == "compiled")) for name in gpu.PARTS]


@pytest.fixture(scope="module", autouse=True)
def libraries() -> None:
    """Lets forks of this process have imported what builds a model."""
    random_backbone(GATE)


def rows_of(name: str, folder: Path) -> list[dict[str, Any]]:
    """What a part measures, in a process of its own, as the script has it."""
    on_ranks(1, gpu.run_part, name, TINY, folder / "rows.json")
    return json.loads((folder / "rows.json").read_text())["rows"]


@pytest.mark.parametrize("name", STEPS)
def test_every_part_runs(tmp_path: Path, name: str) -> None:
    rows = rows_of(name, tmp_path)
    if name == "floor":
        assert rows[0]["flops_per_second"] > 0
    elif name == "evaluation":
        assert rows[0]["questions"] == 18
        assert rows[0]["answers_unlike"] <= 1  # bfloat16: near ties
    elif name == "peers":
        losses = {row["step"]: row["loss"] for row in rows}
        assert all(losses[each.name] == pytest.approx(losses[PUBLISHED], rel=1e-2) for each in RUNGS)
        assert losses[CHARITABLE] == pytest.approx(losses[PUBLISHED], rel=1e-2)
        assert all(row["samples_per_second"] > 0 for row in rows)
        size = replace(GATE, batch=2)
        assert {row["ideal_flops"] for row in rows} == {ideal_flops(size, fixed_lengths(size), trained_head=True)}
    else:
        step = "single device" if name == "single" else name
        assert [(row["step"], row["batch"], row["lengths"]) for row in rows] == [(step, 2, kind) for kind in LENGTHS]
        assert all(row["samples_per_second"] > 0 and row["compared"] == "agrees" for row in rows)
        assert rows[0]["padding_share"] == 0 < rows[1]["padding_share"] < 1
    assert gpu_lines({"parts": {name: {"ended": gpu.DONE, "rows": rows}}})


def test_the_layers_of_a_packed_model_are_packed() -> None:
    backbone = random_backbone(GATE, dtype="bfloat16", quantization="int8")
    packed = [each for each in backbone.language_model.modules() if isinstance(each, QuantisedLinear)]
    assert len(packed) == 7 * GATE.text_layers
    assert all(each.packed.abs().max() == 127 and not each.packed.is_meta for each in packed)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    plain = random_backbone(GATE, dtype="bfloat16").language_model.model.layers[0].self_attn.q_proj.weight
    own = backbone.language_model.model.layers[0].self_attn.q_proj.weight
    torch.testing.assert_close(own, plain.float(), rtol=0, atol=float(plain.abs().max()) / 100)


def test_a_part_has_its_time_and_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = f"import pathlib, time; pathlib.Path({str(tmp_path / 'rows')!r}).write_text('kept')"
    assert gpu.in_own_process([sys.executable, "-c", f"{store}; time.sleep(60)"], 2) == gpu.OUT_OF_TIME
    assert (tmp_path / "rows").read_text() == "kept"
    assert gpu.in_own_process([sys.executable, "-c", "raise ValueError('odd')"], 60) == "failed: ValueError: odd"
    assert gpu.in_own_process([sys.executable, "-c", ""], 60) == gpu.DONE


def test_parts_are_stored_one_by_one_and_others_stay(tmp_path: Path) -> None:
    output, one = tmp_path / "gpu.json", {"ended": gpu.DONE, "made_with": {"device": "X"}, "rows": []}
    gpu.store_part(output, "ddp", one, {"repeats": 5})
    gpu.store_part(output, "floor", {"ended": gpu.OUT_OF_TIME, "rows": []}, {"repeats": 5})
    assert list(json.loads(output.read_text())["parts"]) == ["floor", "ddp"]
    gpu.store_part(output, "nf4", {**one, "made_with": {"device": "Y"}}, {"repeats": 5})
    assert "ddp" not in json.loads(output.read_text())["parts"]
    gpu.store_part(output, "ddp", one, {"repeats": 7})
    assert list(json.loads(output.read_text())["parts"]) == ["ddp"]


def test_all_parts_together_have_ten_minutes() -> None:
    assert sum(part.seconds for part in gpu.PARTS.values()) <= 600


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would measure")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == ExitCode.ENVIRONMENT
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_a_trial_is_not_stored_with_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--shape", "tiny", "--device", "cpu"]) == ExitCode.BAD_INPUT
    assert "--output" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_measures_in_processes_of_its_own(tmp_path: Path) -> None:
    output = tmp_path / "trial.json"
    words = ["--shape", "tiny", "--device", "cpu", "--output", str(output), "--parts", "floor", "single"]
    assert gpu.main(words) == ExitCode.DONE
    parts = json.loads(output.read_text())["parts"]
    assert {name: part["ended"] for name, part in parts.items()} == {"floor": gpu.DONE, "single": gpu.DONE}


def test_tables_say_what_did_not_fit_and_what_was_aimed_at() -> None:
    row = {"step": "ddp", "batch": 32, "lengths": "fixed", "padding_share": 0.0, "recomputes": False}
    fast = row | {"ideal_flops": 64e12, "samples_per_second": 40.0, "peak_bytes": 90e9, "compared": "agrees"}
    floor = {"ended": gpu.DONE, "rows": [{"flops_per_second": 160e12}]}
    parts = {"floor": floor, "ddp": {"ended": gpu.OUT_OF_TIME, "rows": [fast, {**row, "out_of_memory": True}]}}
    text = "\n".join(gpu_lines({"parts": parts}))
    assert "| ddp | 32 | fixed | 0% | kept | 40.0 | 50% | 90.0 |" in text
    assert "| ddp | 32 | fixed | 0% | kept | out of memory |  |  |" in text
    assert "34 samples/s (45 as a stretch): 40.0, met" in " ".join(text.split())
    assert f"ddp: {gpu.OUT_OF_TIME}." in text
    slow = {**parts, "ddp": {"ended": gpu.DONE, "rows": [{**fast, "samples_per_second": 33.0}]}}
    assert "33.0, **missed**" in " ".join(" ".join(gpu_lines({"parts": slow})).split())
    assert gpu_lines({}) == [NOT_MEASURED, ""]


def test_mixed_lengths_cost_what_equal_lengths_cost_where_they_are_equal() -> None:
    expected = ideal_step(GATE, trained_head=True)
    assert ideal_flops(GATE, fixed_lengths(GATE), trained_head=True) == pytest.approx(expected)
    short, long = (replace(GATE, text_tokens=tokens, batch=2) for tokens in (30, 40))
    mean = sum(ideal_step(size, trained_head=False) for size in (short, long)) / 2
    assert ideal_flops(GATE, [(30, 6), (40, 6)], trained_head=False) == pytest.approx(mean)
    assert padding_share(GATE, [(30, 6), (40, 6)]) == pytest.approx(10 / (2 * (GATE.visual_length + 16 + 40)))
