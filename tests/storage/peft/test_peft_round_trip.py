"""Ours to PEFT and back: every trained tensor to the bit, through two folders of others' and our own form."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_m2pt.main import main
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from tests.support.models.tuned_runs import write_run
from tests.support.whole_models import llava_config, write_whole_model

METHODS: dict[str, Callable[[], Method]] = {
    "low-rank updates": lambda: Lora(3, 5.0),
    "of several ranks": lambda: Lora(3, interaction=False, ranks={"q_proj": 2}, alphas={"up_proj": 7.0}),
    "keys and values": lambda: PrefixTuning(3),
    "rows in front": lambda: M2PT(0, 3, textual_depth="shallow", visual_rows_to_text="none"),
    "norms": LayerNormTuning,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of transformers; no test changes it."""
    folder = tmp_path_factory.mktemp("base") / "llava"
    write_whole_model(folder, llava_config())
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_every_tensor_comes_back(base, tmp_path, name):
    run = write_run(tmp_path / "run", METHODS[name](), base, dtype="float32")
    assert main(["export", "peft", str(run), "--output", str(tmp_path / "peft")]) == 0
    words = ["--base", str(base), "--template", "plain", "--output", str(tmp_path / "back")]
    assert main(["convert", str(tmp_path / "peft"), *words]) == 0
    before, after = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (run, tmp_path / "back"))
    assert {name: tensor.shape for name, tensor in after.items()} == {
        name: tensor.shape for name, tensor in before.items()
    }
    assert all(torch.equal(tensor, before[each]) for each, tensor in after.items())
    one, other = (
        json.loads((folder / "adapter" / "adapter_config.json").read_text()) for folder in (run, tmp_path / "back")
    )
    assert one["peft_type"] == other["peft_type"]
    assert one["base_fingerprint"] == other["base_fingerprint"]
