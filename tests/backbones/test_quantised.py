"""Packed layers: what is packed, by value, and that a packed base is the plain base of its dequantised weights."""

import builtins
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_m2pt.backbones import quantised as packing
from lightning_m2pt.backbones.filling import unfilled
from lightning_m2pt.backbones.quantised import (
    QuantisedLinear,
    bitsandbytes_functions,
    packed_tensors,
    quantise_layers,
    quantised_layers,
    quantised_layers_by_name,
    refuse_missing_package,
)
from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.inspection.attention import capture_attention
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.testing.random_backbone import random_batch
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.self_test import refuse_unless_like_library
from tests.prompts.test_shared_prefill import both_batches, largest_difference
from tests.support.quantised_backbone import dequantised, needs, quantised
from tests.support.stored_backbone import WEIGHTS, change_tensors, shard, store_backbone, stored

BOTH = pytest.mark.parametrize("quantization", ["nf4", "int8"])
TYPES = pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
SLOW_TYPES = [pytest.param(dtype, marks=pytest.mark.slow) for dtype in ("float32", "bfloat16")]
ONE_TYPE = pytest.mark.parametrize("dtype", ["float64", *SLOW_TYPES])
NF4 = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635)
NF4 += (-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725)
NF4 += (0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)
"""The published table."""
SHAPES = ((96, 32), (50, 48), (16, 80), (64, 64), (5, 66), (3, 2), (2, 192))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grouped heads, biases on queries, keys and values, widths of 32 and 48: rows that end inside blocks."""
    place = tmp_path_factory.mktemp("quantised") / "b"
    store_backbone(place, {"head_dim": 12, "attention_bias": True})
    return place


def linear(quantization: Any, weight: Tensor, bias: Tensor | None = None) -> QuantisedLinear:
    layer = QuantisedLinear(weight.shape[1], weight.shape[0], bias is not None, quantization, torch.float32)
    state = packed_tensors("weight", weight, quantization)
    layer.load_state_dict(state if bias is None else {**state, "bias": bias}, assign=True)
    return layer.requires_grad_(False)


def nearest_nf4(weight: Tensor) -> Tensor:
    """Every block of 64 numbers by its largest one, each to the nearest of the sixteen values."""
    values = torch.tensor(NF4)
    blocks = []
    for block in weight.flatten().split(64):
        nearest = (block[:, None] / block.abs().max() - values).abs().argmin(dim=1)
        blocks.append(values[nearest] * block.abs().max())
    return torch.cat(blocks).view(weight.shape)


@TYPES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nf4_takes_the_nearest_of_sixteen_values(shape: tuple[int, int], dtype: str) -> None:
    needs("nf4")
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    kind = getattr(torch, dtype)
    torch.testing.assert_close(linear("nf4", weight).dequantised(kind), nearest_nf4(weight).to(kind), rtol=0, atol=0)


@TYPES
def test_int8_is_each_rows_largest_over_127(dtype: str) -> None:
    weight = torch.randn(5, 48, generator=torch.Generator().manual_seed(3)) * torch.tensor(
        [[1e-6], [1], [1e5], [0], [3]]
    )
    kind, layer = getattr(torch, dtype), linear("int8", weight)
    assert layer.packed[[0, 1, 2, 4]].abs().amax(dim=1).tolist() == [127] * 4
    expected = torch.stack(
        [
            row if not row.any() else torch.round(row * (127 / row.abs().max())) * (row.abs().max() / 127)
            for row in weight
        ]
    )
    torch.testing.assert_close(
        layer.dequantised(kind), expected.to(kind), rtol=1e-6 if kind.itemsize > 2 else 0.008, atol=0
    )
    assert float((layer.weight - weight).abs().max() / weight.abs().amax(dim=1).max()) < 0.51 / 127


def test_int8_packs_as_bitsandbytes_does() -> None:
    needs("nf4")
    weight = torch.randn(40, 96, generator=torch.Generator().manual_seed(3))
    packed, largest, _ = bitsandbytes_functions().int8_vectorwise_quant(weight)
    state = packed_tensors("weight", weight, "int8")
    assert torch.equal(state["packed"], packed)
    torch.testing.assert_close(state["scales"], largest[:, None] / 127)


@BOTH
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_product_is_that_of_the_dequantised_weight(quantization: Any, has_bias: bool) -> None:
    needs(quantization)
    generator = torch.Generator().manual_seed(3)
    layer = linear(
        quantization,
        torch.randn(50, 48, generator=generator),
        torch.randn(50, generator=generator) if has_bias else None,
    )
    kept: list[Tensor] = []
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        rows = torch.randn(2, 3, 48, generator=generator).to(dtype).requires_grad_()
        bias = None if layer.bias is None else layer.bias.to(dtype)
        layer.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        expected = nn.functional.linear(rows, layer.weight.to(dtype), bias)
        expected.square().sum().backward()
        wanted, rows.grad = rows.grad, None
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor
        ):
            found = layer(rows)
        found.square().sum().backward()
        assert not kept
        assert torch.equal(found, expected)
        assert torch.equal(rows.grad, wanted)
        assert torch.equal(layer(rows.detach()), expected)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_under_autocast_too(quantization: Any, dtype: torch.dtype) -> None:
    needs(quantization)
    generator = torch.Generator().manual_seed(3)
    layer, plain = linear(quantization, torch.randn(48, 64, generator=generator)), nn.Linear(64, 48, bias=False)
    plain.weight = nn.Parameter(layer.weight, requires_grad=False)
    rows, found = torch.randn(5, 64, generator=generator).to(dtype), []
    for module in (layer, plain):
        given = rows.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            output = module(given)
        output.float().square().sum().backward()
        found.append((output.detach(), given.grad))
    assert all(one.dtype == other.dtype and torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert found[0][0].dtype == torch.bfloat16


def test_a_gradient_of_a_gradient_is_refused_loudly() -> None:
    rows = torch.randn(2, 48).requires_grad_()
    (gradient,) = torch.autograd.grad(linear("int8", torch.randn(5, 48))(rows).square().sum(), rows, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@BOTH
@ONE_TYPE
def test_what_is_not_a_linear_layer_of_the_decoder_stays(folder: Path, quantization: Any, dtype: str) -> None:
    backbone, plain = quantised(folder, quantization, dtype), stored(folder, dtype)
    plain.load()
    packed = {name: each for name, each in backbone.named_modules() if isinstance(each, QuantisedLinear)}
    assert len(packed) == 7 * 3
    assert all(name.startswith("language_model.model.layers.") for name in packed)
    own = dict(backbone.named_parameters())
    for name, parameter in plain.named_parameters():
        if name.removesuffix(".weight") in packed:
            assert name not in own
        else:
            assert own[name].dtype == backbone.dtype
            assert torch.equal(own[name], parameter), name
    assert backbone.base_parameters() == plain.base_parameters()
    assert backbone.token_embedding().weight.dtype == backbone.dtype


@BOTH
@pytest.mark.parametrize("stored_type", [torch.float32, torch.bfloat16], ids=str)
def test_the_base_s_type_does_not_change_what_is_packed(
    tmp_path: Path, quantization: Any, stored_type: torch.dtype
) -> None:
    store_backbone(tmp_path / "b")
    change_tensors(WEIGHTS, lambda tensors: {name: one.to(stored_type) for name, one in tensors.items()})(
        tmp_path / "b"
    )
    shard(tmp_path / "b")
    found = [
        [layer.packed for layer in quantised_layers(quantised(tmp_path / "b", quantization, dtype))]
        for dtype in ("bfloat16", "float64")
    ]
    assert len(found[0]) == 7 * 3
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@BOTH
def test_weights_are_packed_one_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch, quantization: Any) -> None:
    needs(quantization)
    alive: list[weakref.ref[Tensor]] = []

    def watched(name: str, weight: Tensor, how: Any) -> dict[str, Tensor]:
        assert all(reference() is None for reference in alive)
        alive.append(weakref.ref(weight))
        return packed_tensors(name, weight, how)

    monkeypatch.setattr(unfilled, "packed_tensors", watched)
    quantised(folder, quantization)
    assert len(alive) == 7 * 3


@BOTH
def test_a_weight_that_is_not_finite_is_refused_before_it_is_packed(tmp_path: Path, quantization: Any) -> None:
    needs(quantization)
    store_backbone(tmp_path / "b")

    def spoil(tensors: dict[str, Tensor]) -> None:
        tensors["model.layers.2.mlp.up_proj.weight"].view(-1)[3] = float("nan")

    change_tensors(WEIGHTS, spoil)(tmp_path / "b")
    with pytest.raises(BadInputError, match=r"NaN or infinity in model\.layers\.2\.mlp\.up_proj\.weight"):
        quantised(tmp_path / "b", quantization)


def trained(backbone: Any, path: str, shortcuts: Shortcuts) -> tuple[Tensor, dict[str, Tensor | None]]:
    method = M2PT(3, 4, init="normal", init_std=0.5, path=path)
    method.build(backbone, torch.Generator().manual_seed(7))
    method.to(backbone.dtype).attach(backbone)
    losses = supervised_rows(backbone, random_batch(dtype=backbone.dtype), shortcuts).losses
    losses.sum().backward()
    method.detach(backbone)
    return losses.detach(), {name: tensor.grad for name, tensor in method.named_parameters()}


@BOTH
@ONE_TYPE
@pytest.mark.parametrize(
    ("path", "shortcuts", "recomputes"),
    [("token", EVERY_ROW, False), ("prefix", Shortcuts(), False), ("prefix", Shortcuts(), True)],
    ids=["token", "prefix", "recomputed"],
)
def test_losses_and_gradients_are_those_of_the_dequantised_base(
    folder: Path, quantization: Any, dtype: str, path: str, shortcuts: Shortcuts, recomputes: bool
) -> None:
    backbone = quantised(folder, quantization, dtype, load=False)
    backbone.recompute_activations(recomputes)
    backbone.load()
    backbone.train()
    losses, gradients = trained(backbone, path, shortcuts)
    expected, wanted = trained(dequantised(folder, backbone), path, shortcuts)
    assert torch.equal(losses, expected)
    assert all(torch.equal(gradients[name], wanted[name]) for name in wanted)


@BOTH
def test_answers_and_the_self_test(folder: Path, quantization: Any) -> None:
    backbone, batch = quantised(folder, quantization), random_batch(dtype=torch.float64)
    plain = dequantised(folder, backbone)
    with torch.no_grad():
        assert torch.equal(backbone(batch).hidden_states, plain(batch).hidden_states)
        assert torch.equal(backbone.prefill(batch).logits, plain.prefill(batch).logits)
    method = M2PT(3, 4, init="normal", init_std=0.5)
    method.build(backbone, torch.Generator().manual_seed(7))
    method.double().attach(backbone)
    assert backbone.shares_prefix()
    assert largest_difference(backbone, *both_batches(before=4, common=2)) < 1e-5
    for use in ("training", "answering"):
        refuse_unless_like_library(backbone, use, Shortcuts())


@BOTH
def test_attention_maps_are_those_of_the_dequantised_base(folder: Path, quantization: Any) -> None:
    backbone, batch = quantised(folder, quantization), random_batch(dtype=torch.float64)
    found = [capture_attention(each, batch) for each in (backbone, dequantised(folder, backbone))]
    for one, other in zip(*found, strict=True):
        assert len(one.language) == 3
        for layer, expected in zip(one.language, other.language, strict=True):
            assert torch.equal(layer.probabilities, expected.probabilities)


def test_nf4_is_what_transformers_loads(folder: Path) -> None:
    """With gradients: without them the library repacks its weights on some processors and computes in bfloat16."""
    needs("nf4")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    backbone = quantised(folder, "nf4", "float32")
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    library = AutoModelForCausalLM.from_pretrained(
        folder / "language",
        trust_remote_code=False,
        quantization_config=settings,
        device_map="cpu",
        dtype=torch.float32,
    )
    for name, module in library.named_modules():
        if hasattr(module, "quant_state"):
            own = backbone.language_model.get_submodule(name)
            assert torch.equal(own.packed, module.weight.data)
            assert torch.equal(own.scales, module.weight.quant_state.absmax)
    assert len(list(quantised_layers(backbone))) == sum(hasattr(each, "quant_state") for each in library.modules())


def test_the_quantisation_is_part_of_the_base_s_name(folder: Path) -> None:
    names = []
    for quantization in ("nf4", "int8", None):
        backbone = stored(folder)
        backbone.quantise_decoder(quantization)  # type: ignore[arg-type]
        names += [backbone.fingerprint(), backbone.former_fingerprint()]
    assert len(set(names)) == 6
    assert all(name.startswith("v2:") for name in names[::2])
    assert names[4:] == [stored(folder).fingerprint(), stored(folder).former_fingerprint()]


@BOTH
def test_what_is_counted_without_memory_is_what_is_built(folder: Path, quantization: Any) -> None:
    backbone, counted = quantised(folder, quantization), quantised(folder, quantization, load=False)
    counted.build_on_meta()
    assert counted.base_parameters() == backbone.base_parameters()
    assert counted.base_bytes() == backbone.base_bytes()
    modules = (backbone.language_model, backbone.projector, backbone.vision_tower)
    held = sum(each.numel() * each.itemsize for module in modules for each in module.parameters())
    held -= backbone.vision_tower.proj.numel() * backbone.dtype.itemsize
    largest = 48 * 32 * (backbone.dtype.itemsize + 4)
    assert backbone.base_bytes() == held + largest


def test_compiled_layers_are_refused(folder: Path) -> None:
    backbone = stored(folder)
    backbone.compile_backend = "aot_eager"
    with pytest.raises(BadInputError, match="layers in int8 are not compiled"):
        backbone.quantise_decoder("int8")


def test_a_weight_of_an_odd_number_of_numbers_is_refused() -> None:
    with torch.device("meta"):
        model = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(3, 5)])})
    with pytest.raises(BadInputError, match=r"layers\.0 has 15 numbers, which are no pairs"):
        quantise_layers(model, model["layers"], "nf4")
    quantise_layers(model, model["layers"], "int8")
    assert list(quantised_layers_by_name(model)) == ["layers.0"]


@pytest.fixture
def forgotten_functions() -> Any:
    bitsandbytes_functions.cache_clear()
    yield
    bitsandbytes_functions.cache_clear()


def importing(other: Callable[[str], None]) -> Callable[..., Any]:
    own = builtins.__import__

    def instead(name: str, *arguments: Any) -> Any:
        other(name)
        return own(name, *arguments)

    return instead


@pytest.mark.usefixtures("forgotten_functions")
def test_without_the_package_nf4_is_refused_before_weights_load(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        if name.startswith("bitsandbytes"):
            raise ImportError("No module named 'bitsandbytes'")

    monkeypatch.setattr(builtins, "__import__", importing(missing))
    backbone = stored(folder)
    backbone.quantise_decoder("nf4")
    with pytest.raises(EnvironmentFailure) as refused:
        backbone.check_files()
    assert str(refused.value).splitlines() == [
        "error: model.backbone.quantization: bitsandbytes cannot be imported (No module named 'bitsandbytes')",
        "  expected: the package that packs weights in nf4; int8 needs none",
        "  hint: pip install -c constraints.txt -e '.[quantised]'",
    ]
    backbone.quantise_decoder("int8")
    backbone.check_files()


@pytest.mark.usefixtures("forgotten_functions")
def test_the_package_cannot_fetch_kernels_while_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("nf4")
    seen: list[Any] = []

    def look(name: str) -> None:
        if name.startswith("bitsandbytes"):
            seen.append(sys.modules.get("kernels", "can be imported"))

    own = object()
    monkeypatch.setitem(sys.modules, "kernels", own)
    monkeypatch.setattr(builtins, "__import__", importing(look))
    refuse_missing_package("nf4")
    assert seen
    assert set(seen) == {None}
    assert sys.modules["kernels"] is own
    assert packing.bitsandbytes_functions() is sys.modules["bitsandbytes.functional"]
