"""Stored backbones read with packed layers, and the same with plain layers that hold the dequantised weights."""

import importlib.util
from pathlib import Path

import pytest

from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.quantised import Quantization, quantised_layers
from tests.support.stored_backbone import stored


def needs(quantization: Quantization) -> None:
    """Skips a test by name where what packs is not installed."""
    if quantization == "nf4" and importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("nf4 needs the extra 'quantised'")


def quantised(folder: Path, quantization: Quantization, dtype: str = "float64", *, load: bool = True) -> OpenClipLlama:
    """Returns the backbone that a folder holds, its decoder's layers packed."""
    needs(quantization)
    backbone = stored(folder, dtype)
    backbone.quantise_decoder(quantization)
    if load:
        backbone.load()
    return backbone


def dequantised(folder: Path, backbone: OpenClipLlama) -> OpenClipLlama:
    """Returns the plain backbone of a folder with the weights that another one multiplies by."""
    plain = stored(folder, backbone.dtype_name)
    plain.load()
    names = {id(module): name for name, module in backbone.named_modules()}
    for layer in quantised_layers(backbone):
        plain.get_submodule(names[id(layer)]).weight.data.copy_(layer.dequantised(backbone.dtype))
    return plain
