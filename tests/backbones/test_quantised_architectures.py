"""Every decoder, whole model and pair takes packed layers: the library's own forward with the dequantised weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_m2pt.backbones.causal_decoding import CausalDecoding
from lightning_m2pt.backbones.language_model import load_language_model
from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.backbones.quantised import QuantisedLinear, quantised_layers
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.testing.passes import batch_for
from lightning_m2pt.testing.random_backbone import random_backbone
from lightning_m2pt.tuning.losses import supervised_rows
from tests.support.models.decoders import FAMILIES, UNLISTED, of_family, unlisted
from tests.support.quantised_backbone import needs
from tests.support.towers.stored_pairs import store_pair, stored_pair
from tests.support.whole_models import idefics3_config, llava_config, onevision_config, write_whole_model

FAST = ("phi3", "gemma3", "starcoder2")
WHOLE = {"llava": llava_config, "onevision": onevision_config, "idefics3": idefics3_config}


def put_dequantised(packed: nn.Module, plain: nn.Module) -> int:
    """Copies what packed layers multiply by into the plain ones of the same names; returns how many there are."""
    layers = {name: each for name, each in packed.named_modules() if isinstance(each, QuantisedLinear)}
    for name, layer in layers.items():
        plain.get_submodule(name).weight.data.copy_(layer.dequantised(torch.float64))
    return len(layers)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in (*FAMILIES, *UNLISTED)]
)
@pytest.mark.parametrize("quantization", [pytest.param("nf4", marks=pytest.mark.slow), "int8"])
def test_a_decoder_with_packed_layers(tmp_path: Path, name: str, quantization: Any) -> None:
    needs(quantization)
    built = of_family(tmp_path, name) if name in FAMILIES else random_backbone(tmp_path, language=unlisted(name))
    folder = tmp_path / "language"
    built.language_model.float().save_pretrained(folder)
    packed, plain = (load_language_model(folder, torch.float64, how) for how in (quantization, None))
    linear = [each for each in plain.model.layers.modules() if isinstance(each, nn.Linear)]
    assert put_dequantised(packed, plain) == len(linear) >= 4 * 3
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(packed(tokens).logits, plain(tokens).logits)


def whole_model(folder: Path, name: str, quantization: Any) -> CausalDecoding:
    if not (folder / "config.json").exists():
        write_whole_model(folder, WHOLE[name]())
    return VisionLanguageModel(str(folder), dtype="float64", quantization=quantization)


def pair(folder: Path, name: str, quantization: Any) -> CausalDecoding:
    if not (folder / "tower").exists():
        store_pair(folder, name)
    return stored_pair(folder, "float64", quantization=quantization)


@pytest.mark.parametrize("quantization", ["nf4", pytest.param("int8", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("make", "name"),
    [(pair, "clip"), (whole_model, "llava"), (whole_model, "onevision"), (whole_model, "idefics3")],
    ids=["pair", *WHOLE],
)
def test_tower_and_connector_stay_as_they_are(tmp_path: Path, make: Any, name: str, quantization: Any) -> None:
    needs(quantization)
    packed, plain = (make(tmp_path, name, how) for how in (quantization, None))
    assert packed.fingerprint() != plain.fingerprint()
    packed.load()
    plain.load()
    assert put_dequantised(packed, plain) == 7 * packed.shape.text_layers == len(list(quantised_layers(packed)))
    assert packed.base_parameters() == plain.base_parameters()
    counted = make(tmp_path, name, quantization)
    counted.build_on_meta()
    assert (counted.base_parameters(), counted.base_bytes()) == (packed.base_parameters(), packed.base_bytes())
    assert packed.base_bytes() < plain.base_bytes()
    found = []
    for backbone in (packed, plain):
        method = M2PT(3, 4, init="normal", init_std=0.5, visual_rows_to_text="none")
        method.build(backbone, torch.Generator().manual_seed(7))
        method.double().attach(backbone)
        losses = supervised_rows(backbone, batch_for(backbone)).losses
        losses.sum().backward()
        found.append([losses, *(tensor.grad for tensor in method.named_tensors().values())])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_compiled_layers_of_a_pair_are_refused_in_its_constructor(tmp_path: Path) -> None:
    store_pair(tmp_path, "clip")
    with pytest.raises(BadInputError, match="layers in nf4 are not compiled"):
        stored_pair(tmp_path, quantization="nf4", compile_backend="aot_eager")
    assert isinstance(stored_pair(tmp_path, quantization="nf4"), TowerAndDecoder)
