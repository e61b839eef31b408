"""What LLaVA's trainer keeps of a projector of two layers, under its own names, on a base of transformers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.main import main
from lightning_m2pt.methods.lora import Lora
from tests.support.peft.written_folders import LORA, write_peft
from tests.support.whole_models import TEXT, TOWER, llava_config, write_whole_model

LAYERS = {"0": (TEXT["hidden_size"], TOWER["hidden_size"]), "2": (TEXT["hidden_size"], TEXT["hidden_size"])}
OF_TRANSFORMERS = {"0": "linear_1", "2": "linear_2"}


def projector() -> dict[str, Tensor]:
    """Returns a projector of random numbers by LLaVA's names: ``0.weight`` to ``2.bias``."""
    drawn = torch.Generator().manual_seed(1)
    pairs = {
        layer: {"weight": torch.randn(shape, generator=drawn), "bias": torch.randn(shape[0], generator=drawn)}
        for layer, shape in LAYERS.items()
    }
    return {f"{layer}.{name}": tensor for layer, pair in pairs.items() for name, tensor in pair.items()}


def written(folder: Path, beginning: str, tensors: dict[str, Tensor]) -> Path:
    """Writes a LoRA of the decoder's queries, and a projector's tensors beside it."""
    width, made = TEXT["hidden_size"], TEXT["num_attention_heads"] * TEXT["head_dim"]
    drawn = torch.Generator().manual_seed(2)
    pairs = {}
    for layer in range(TEXT["num_hidden_layers"]):
        place = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        pairs[f"{place}.lora_A.weight"] = torch.randn(2, width, generator=drawn)
        pairs[f"{place}.lora_B.weight"] = torch.randn(made, 2, generator=drawn)
    write_peft(folder, {**LORA, "target_modules": ["q_proj"]}, pairs)
    save_file({f"{beginning}{name}": one for name, one in tensors.items()}, folder / "non_lora_trainables.safetensors")
    return folder


def as_run(folder: Path, base: Path) -> Path:
    """Makes a run's folder of an adapter of LoRA's, and returns it."""
    arguments = json.loads((folder / "adapter" / "adapter_config.json").read_text())["arguments"]
    sections = {
        "backbone": (VisionLanguageModel, {"model": str(base), "dtype": "float32"}),
        "method": (Lora, arguments),
    }
    model = {
        name: {"class_path": f"{kind.__module__}.{kind.__name__}", "init_args": given}
        for name, (kind, given) in sections.items()
    }
    (folder / "config.yaml").write_text(json.dumps({"model": model}))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "llava"
    write_whole_model(folder, llava_config())
    return folder


@pytest.mark.parametrize("form", ["LLaVA's names", "transformers' names"])
def test_it_becomes_the_interaction_layer_and_is_merged_into_the_base(base: Path, tmp_path: Path, form: str) -> None:
    tensors, beginning = projector(), "base_model.model.model.mm_projector."
    if form == "transformers' names":
        beginning = "base_model.model.multi_modal_projector."
        named = {f"{OF_TRANSFORMERS[name[0]]}{name[1:]}": one for name, one in tensors.items()}
    else:
        named = tensors
    folder = written(tmp_path / "lora", beginning, named)
    assert main(["convert", str(folder), "--base", str(base), "--output", str(tmp_path / "made")]) == 0
    found = load_file(tmp_path / "made" / "adapter" / "adapter_model.safetensors")
    wanted = {f"{OF_TRANSFORMERS[name[0]]}{name[1:]}": one for name, one in tensors.items()}
    assert {name for name in found if name.startswith("interaction.")} == {f"interaction.{name}" for name in wanted}
    for name, tensor in wanted.items():
        assert torch.equal(found[f"interaction.{name}"], tensor), name
    assert main(["merge", str(as_run(tmp_path / "made", base)), "--output", str(tmp_path / "merged")]) == 0
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    for name, tensor in wanted.items():
        (place,) = [each for each in merged if each.endswith(f"multi_modal_projector.{name}")]
        assert torch.equal(merged[place], tensor), name


def test_half_of_it_is_refused(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = {name: one for name, one in projector().items() if name != "2.bias"}
    folder = written(tmp_path / "lora", "base_model.model.model.mm_projector.", half)
    assert main(["convert", str(folder), "--base", str(base), "--output", str(tmp_path / "made")]) == 2
    assert "of the projector linear_2.bias is missing" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
