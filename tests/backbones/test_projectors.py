"""Projectors in every form, by value; of another tower or decoder they are refused by name."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import gelu, linear

from lightning_m2pt.backbones.pairs.projector import PREFIXES, described_projector
from lightning_m2pt.errors import BadInputError
from tests.support.towers.small import WIDTH
from tests.support.towers.stored_pairs import TEXT_WIDTH, projector_tensors


@pytest.mark.parametrize("prefix", ["", *PREFIXES])
@pytest.mark.parametrize("form", ["linear", "llava", "transformers"])
def test_what_it_computes(tmp_path: Path, form: str, prefix: str) -> None:
    tensors = projector_tensors(form)
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, tmp_path / "p.safetensors")
    module = described_projector(tmp_path / "p.safetensors").load(WIDTH, TEXT_WIDTH, torch.float64)
    rows = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    first, *second = zip(*[iter(tensor.double() for tensor in tensors.values())] * 2, strict=True)
    expected = linear(rows, *first)
    for weight, bias in second:
        expected = linear(gelu(expected), weight, bias)
    assert torch.equal(module(rows), expected)
    names = ["weight", "bias"] if form == "linear" else ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert [name for name, _ in module.named_parameters()] == names


@pytest.mark.parametrize(("name", "step"), [("{}.weight", 2), ("linear_{}.weight", 1)])
@pytest.mark.parametrize("layers", [2, 3, 8])
def test_layers_without_bias(tmp_path: Path, layers: int, name: str, step: int) -> None:
    widths = [WIDTH, *range(7, 6 + layers), TEXT_WIDTH]
    first = 0 if step == 2 else 1
    weights = [torch.randn(made, given) for given, made in pairwise(widths)]
    named = {name.format(first + step * place): weight for place, weight in enumerate(weights)}
    save_file(named, tmp_path / "p.safetensors")
    module = described_projector(tmp_path / "p.safetensors").load(WIDTH, TEXT_WIDTH, torch.float32)
    assert module(torch.zeros(1, WIDTH)).eq(0).all()
    assert [type(part).__name__ for part in module.children()] == ["Linear", *["GELU", "Linear"] * (layers - 1)]
    for found, weight in zip(module.parameters(), weights, strict=True):
        assert torch.equal(found, weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda own: {**own, "0.weight": torch.ones(32, 23)},
            r"0\.weight \[32, 23\], not \[32, 24\]",
        ),
        (lambda own: {**own, "2.weight": torch.ones(31, 32)}, r"2\.weight \[31, 32\], not \[32, 32\]"),
        (lambda own: {name: own[name] for name in ("0.weight", "0.bias", "2.weight")}, r"missing 2\.bias"),
        (lambda own: {**own, "4.scale": own["0.bias"].clone()}, "no projector"),
        (lambda own: {"0.weight": own["0.weight"], "1.weight": own["2.weight"]}, "no projector"),
        (lambda own: {**own, "1.weight": own["0.bias"].clone()}, "no projector"),
        (lambda own: {f"{2 * place}.weight": torch.ones(32, 32) for place in range(9)}, "no projector"),
        (lambda own: {"0.weight": own["0.weight"]}, "no projector"),
        (lambda own: {"weight": own["0.bias"]}, "no matrix"),
        (lambda own: {"bias": own["0.bias"]}, "no projector"),
        (lambda own: {**own, "0.bias": own["0.bias"] * torch.nan}, "NaN"),
    ],
)
def test_another_projector_is_refused(tmp_path: Path, change: object, message: str) -> None:
    tensors: dict[str, Tensor] = change(projector_tensors("llava"))  # type: ignore[operator]
    save_file(tensors, tmp_path / "p.safetensors")
    with pytest.raises(BadInputError, match=message):
        described_projector(tmp_path / "p.safetensors").load(WIDTH, TEXT_WIDTH, torch.float32)
