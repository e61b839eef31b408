"""PEFT's tuning of norms: all norms of the language model, by the names of any model, or nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lightning_m2pt.main import main
from tests.support.peft.written_folders import SHAPE, write_peft

CONFIG: dict[str, Any] = {"peft_type": "LN_TUNING", "task_type": "CAUSAL_LM", "target_modules": ["norm"]}


def norms(begin: str = "base_model.model.model.") -> dict[str, Tensor]:
    places = [
        f"layers.{n}.{each}"
        for n in range(SHAPE.text_layers)
        for each in ("input_layernorm", "post_attention_layernorm")
    ]
    return {
        f"{begin}{place}.ln_tuning_layers.weight": torch.full((SHAPE.text_width,), 1.0 + number)
        for number, place in enumerate([*places, "norm"])
    }


def convert(folder: Path, output: Path) -> int:
    return main(["convert", str(folder), "--base", "testbed", "--output", str(output)])


@pytest.mark.parametrize(
    "begin",
    ["base_model.model.model.", "base_model.model.model.language_model.", "base_model.model.language_model.model."],
)
def test_all_norms_become_ours(begin: str, tmp_path: Path) -> None:
    assert convert(write_peft(tmp_path / "adapter", CONFIG, norms(begin)), tmp_path / "made") == 0
    found = load_file(tmp_path / "made" / "adapter" / "adapter_model.safetensors")
    given = norms("language_norms.model.")
    assert found.keys() == {name.replace(".ln_tuning_layers", "") for name in given}
    for name, tensor in given.items():
        assert torch.equal(found[name.replace(".ln_tuning_layers", "")], tensor)
    config = json.loads((tmp_path / "made" / "adapter" / "adapter_config.json").read_text())
    assert config["arguments"] == {"language": True, "vision": False, "interaction": False}


LAST = "base_model.model.model.norm.ln_tuning_layers.weight"
REFUSED: dict[str, tuple[dict[str, Tensor], str]] = {
    "one is missing": (
        {name: one for name, one in norms().items() if name != LAST},
        "of the norms language_norms.model.norm.weight",
    ),
    "none": ({"base_model.model.x": torch.ones(1)}, "x was trained, too"),
    "the head": ({**norms(), "base_model.model.lm_head.ln_tuning_layers.weight": torch.ones(3, 3)}, "it tunes lm_head"),
    "one twice": ({**norms(), "base_model.model.norm.ln_tuning_layers.weight": torch.ones(128)}, "it tunes norm"),
    "another width": ({**norms(), LAST: torch.ones(7)}, "is [7]"),
    "infinite": ({**norms(), LAST: torch.full((SHAPE.text_width,), torch.inf)}, "NaN or infinity"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_three_lines(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors, expected = REFUSED[name]
    assert convert(write_peft(tmp_path / "adapter", CONFIG, tensors), tmp_path / "made") == 2
    said = capsys.readouterr().err
    assert expected in " ".join(said.split())
    assert len(said.strip().splitlines()) <= 4
    assert not (tmp_path / "made").exists()
