"""Every method on a base whose layers are packed: the contract of methods, or a refusal by its reason."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.testing.method_contract import method_contract
from lightning_m2pt.testing.random_backbone import random_batch
from lightning_m2pt.tuning.losses import supervised_rows
from tests.methods.test_every_method import METHODS, START_AS_FROZEN, built
from tests.support.quantised_backbone import dequantised, needs, quantised
from tests.support.stored_backbone import store_backbone

FAST = {("m2pt", "nf4")}
LEFT_OUT = {"full", "full and prompts", "pissa", "aprompt without keys and values"}
"""Three are refused; of the last, the first query sees its own row alone: its gradient is rounding, or zero."""
CASES = [(name, how) for name in METHODS if name not in LEFT_OUT for how in ("nf4", "int8")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("quantised") / "b"
    store_backbone(place)
    return place


def of_type(folder: Path, quantization: Any, dtype: torch.dtype) -> OpenClipLlama:
    return quantised(folder, quantization, str(dtype).removeprefix("torch."))


@pytest.mark.parametrize(
    ("name", "quantization"),
    [pytest.param(*case, marks=[] if case in FAST else pytest.mark.slow, id=" in ".join(case)) for case in CASES],
)
def test_the_contract_of_methods_on_packed_layers(folder: Path, name: str, quantization: Any) -> None:
    method_contract(METHODS[name], partial(of_type, folder, quantization), starts_as_frozen=name in START_AS_FROZEN)


@pytest.mark.parametrize("name", ["lora", "layernorm", "adapter"])
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_gradients_are_those_of_the_dequantised_base(folder: Path, name: str, quantization: Any) -> None:
    packed = quantised(folder, quantization, "float32")
    found = []
    for backbone in (packed, dequantised(folder, packed)):
        method = built(name, backbone)
        method.attach(backbone)
        supervised_rows(backbone, random_batch()).losses.sum().backward()
        found.append({each: tensor.grad for each, tensor in method.named_parameters()})
        method.detach(backbone)
    assert found[0]
    assert all(torch.equal(gradient, found[1][each]) for each, gradient in found[0].items())


def test_packed_weights_are_not_trained(folder: Path) -> None:
    shape = quantised(folder, "int8", load=False).shape
    with pytest.raises(BadInputError, match="quantised weights cannot be trained") as refused:
        Full().check(shape)
    assert refused.value.where == "model.method.language"
    Full(language=False).check(shape)


def test_low_rank_updates_are_not_merged_into_packed_weights(folder: Path) -> None:
    backbone, method = quantised(folder, "int8", "float32"), Lora(2)
    method.build(backbone, torch.Generator().manual_seed(5))
    method.attach(backbone)
    layers = [module for module in backbone.modules() if hasattr(module, "lora_A")]
    assert len(layers) == 7 * 3
    for layer in layers:
        with pytest.raises(BadInputError, match="cannot be merged into packed weights"):
            layer.merge()


ASK = """
import sys, tempfile, pathlib, torch
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.testing.random_backbone import random_backbone
backbone, method = random_backbone(pathlib.Path(tempfile.mkdtemp())), Lora(2)
method.check(backbone.shape)
method.build(backbone, torch.Generator())
print("peft" in sys.modules, "bitsandbytes" in sys.modules, "kernels" in sys.modules)
"""


def test_low_rank_updates_do_not_import_what_packs() -> None:
    """peft would: seconds, and on some processors code from the hub."""
    needs("nf4")
    found = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "False", "False"]
    assert "kernels" not in found.stderr
