"""Bases on which a prefix of PEFT's would be another one here, and the way there and back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lightning_m2pt.backbones.origins.named import named_base
from lightning_m2pt.main import main
from tests.support.peft.written_folders import LORA, PREFIX, low_rank_tensors, prefix_tensors, write_peft
from tests.support.whole_models import llava_config, next_config, qwen_config, write_whole_model

BASES: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "positions on three axes": (qwen_config, "is not known to be ours"),
    "several tiles": (next_config, "is not known to be ours"),
    "a window": (lambda: llava_config(text="mistral", sliding_window=6), "see 6 positions back"),
}


@pytest.mark.parametrize("name", BASES)
def test_refused_by_its_reason(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, expected = BASES[name]
    write_whole_model(tmp_path / "base", config())
    shape = named_base(str(tmp_path / "base")).shape
    heads, layers, width = shape.text_key_value_heads, shape.text_layers, shape.text_head_width
    words = {"num_layers": layers, "num_attention_heads": heads, "token_dim": heads * width}
    tensors = {"prompt_embeddings": torch.ones(3, layers * 2 * heads * width)}
    folder = write_peft(tmp_path / "adapter", {**PREFIX, **words}, tensors)
    base, output = str(tmp_path / "base"), str(tmp_path / "made")
    assert main(["convert", str(folder), "--base", base, "--output", output]) == 2
    assert expected in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "made").exists()


ROUND: dict[str, tuple[dict[str, Any], Callable[[], dict[str, torch.Tensor]]]] = {
    "prefix": (PREFIX, prefix_tensors),
    "low rank": ({**LORA, "alpha_pattern": {"layers.0.mlp.up_proj": 7}}, low_rank_tensors),
}


@pytest.mark.parametrize("name", ROUND)
def test_there_and_back_is_the_same_to_the_bit(name: str, tmp_path: Path) -> None:
    config, tensors = ROUND[name]
    theirs, first, back, again = (tmp_path / each for each in ("theirs", "first", "back", "again"))
    write_peft(theirs, config, tensors())
    assert main(["convert", str(theirs), "--base", "testbed", "--template", "vicuna_v1", "--output", str(first)]) == 0
    words = [str(first / "adapter"), "--config", "experiments/frozen.yaml", "--output", str(back), "--on", "language"]
    assert main(["export", "peft", *words]) == 0
    assert main(["convert", str(back), "--base", "testbed", "--template", "vicuna_v1", "--output", str(again)]) == 0
    found, expected = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (again, first))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[each], expected[each]) for each in expected)
    kept = load_file(back / "adapter_model.safetensors")
    assert all(torch.equal(kept[each], tensor) for each, tensor in tensors().items())
