"""Tuners of peft on a base in bfloat16: stock peft's gradients, what is in float32, and what rounding undoes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.peft_layers import peft_layer, trained_in
from lightning_m2pt.methods.peft_settings import checked_settings
from lightning_m2pt.methods.peft_tuner import PeftTuner
from lightning_m2pt.system.hidden_modules import hidden_module
from lightning_m2pt.testing.random_backbone import random_backbone
from lightning_m2pt.tuning.optimizer import AdamW
from tests.methods.test_peft_tuner import ALL, OF_TUNERS, in_part

TUNERS = [name for name in OF_TUNERS if name not in ("pissa", "olora")]  # whose start is taken from the weights


def gradients_of(model: nn.Module, trained: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the gradients of a loss behind the library's own forward pass, in a base's type."""
    rows = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)
    model(inputs_embeds=rows).logits.float().square().mean().backward()
    return {name: each.grad for name, each in trained.items() if each.grad is not None}


@pytest.mark.parametrize("name", TUNERS)
def test_gradients_are_those_of_stock_peft_bit_for_bit_and_all_is_float32(tmp_path: Path, name: str) -> None:
    tuner, settings = OF_TUNERS[name]
    backbone, other = (random_backbone(tmp_path, torch.bfloat16) for _ in range(2))
    method, generator = PeftTuner(tuner, settings, interaction=False), torch.Generator().manual_seed(2)
    method.build(backbone, torch.Generator().manual_seed(1))
    tensors = in_part(method)
    with hidden_module("bitsandbytes"):
        from peft import PeftType, get_peft_model
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(tuner.upper())](**settings, target_modules=ALL)
        stock = get_peft_model(other.language_model, config).eval()
    found = {
        key.removeprefix("base_model.model.").replace(".default", ""): each
        for key, each in stock.named_parameters()
        if each.requires_grad
    }
    assert set(found) == set(tensors)
    with torch.no_grad():
        for key, tensor in tensors.items():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
            found[key].copy_(tensor)
    method.attach(backbone)
    ours, theirs = gradients_of(backbone.language_model, tensors), gradients_of(stock, found)
    assert set(ours) == set(theirs) == set(tensors)
    assert all(torch.equal(ours[key], theirs[key]) for key in tensors)
    optimizer = AdamW(learning_rate=1e-3).build(method.parts())
    optimizer.step()
    kept = [each for state in optimizer.state.values() for each in state.values()]
    assert len(optimizer.state) == len(tensors)
    assert {each.dtype for each in (*tensors.values(), *ours.values(), *kept)} == {torch.float32}


def moved_layer(
    tuner: str, settings: dict[str, Any], weight: Tensor, size: float = 0.02
) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    """Returns one of peft's layers whose tensors stand elsewhere than they start, the same for every type."""
    linear = nn.Linear(*weight.T.shape, bias=False, dtype=weight.dtype).requires_grad_(False)
    linear.weight.copy_(weight)
    torch.manual_seed(3)
    layer: nn.Module = peft_layer(linear, "block.q_proj", tuner, checked_settings(tuner, settings, "settings"), "")
    tensors, generator = trained_in(layer), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.add_(size * torch.randn(tensor.shape, generator=generator))
    return layer, tensors


@pytest.mark.parametrize("name", TUNERS)
def test_a_layer_by_itself_loses_no_more_than_one_rounding(name: str) -> None:
    """From the same rows and gradients, which are exact in both types: orthogonal matrices, too, are of float32."""
    tuner, settings = OF_TUNERS[name]
    settings = {key: each for key, each in settings.items() if key != "feedforward_modules"}
    generator, found = torch.Generator().manual_seed(0), []
    weight, rows, gradient = (
        torch.randn(*shape, generator=generator).to(torch.bfloat16) for shape in ((32, 32), (200, 32), (200, 32))
    )
    for dtype in (torch.float32, torch.bfloat16):
        layer, tensors = moved_layer(tuner, settings, weight.to(dtype))
        layer(rows.to(dtype)).backward(gradient.to(dtype))
        found.append(torch.cat([each.grad.flatten() for each in tensors.values() if each.grad is not None]))
    assert found[0].numel() == found[1].numel() > 0
    assert (found[1] - found[0]).norm() / found[0].norm() < 2**-8


def test_rounding_undoes_what_a_tight_constraint_leaves_of_a_rotation() -> None:
    """How much of a change of rows arrives behind a layer that multiplies by one."""
    rows = torch.randn(200, 128, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    arrived = {}
    for eps in (6e-5, 0.1):
        changes = []
        for dtype in (torch.float32, torch.bfloat16):
            layer, _ = moved_layer("oft", {"coft": True, "eps": eps}, torch.eye(128, dtype=dtype))
            changes.append(layer(rows.to(dtype)).detach().float() - rows.float())
        assert float(changes[0].norm() / rows.float().norm()) == pytest.approx(2 * eps / 128**0.5, rel=0.1)
        arrived[eps] = float((changes[0] * changes[1]).sum() / changes[0].square().sum())
    assert arrived[6e-5] < 0.05
    assert arrived[0.1] > 0.9


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({}, "0.007"),  # down_proj turns 48 numbers
        ({"target_modules": ["q_proj"]}, "0.006"),
        ({"oft_block_size": 8, "block_share": True}, "0.003"),
        ({"r": 4, "oft_block_size": 0, "block_share": True, "target_modules": ["q_proj"]}, "0.003"),
    ],
    ids=str,
)
def test_coft_that_bfloat16_would_undo_is_refused(tmp_path: Path, settings: dict[str, Any], least: str) -> None:
    backbone = random_backbone(tmp_path, torch.bfloat16)
    sizes = {"oft_block_size": 16, **settings}
    for eps in (6e-5, float(least) - 0.001):
        with pytest.raises(BadInputError, match=r"and bfloat16 rounds them by 0\.002") as refused:
            PeftTuner("oft", {"coft": True, "eps": eps, **sizes}).build(backbone, torch.Generator())
        assert refused.value.where == "model.method.settings.eps"
        assert refused.value.expected == f"{least} or more, or a base in float32"
    PeftTuner("oft", {"coft": True, "eps": float(least), **sizes}).build(backbone, torch.Generator())
    PeftTuner("oft", {"eps": 6e-5, **sizes}).build(backbone, torch.Generator())
    PeftTuner("oft", {"coft": True, **sizes}).build(random_backbone(tmp_path), torch.Generator())


def test_coft_of_the_tower_is_refused_under_its_own_argument(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path, torch.bfloat16)
    with pytest.raises(BadInputError) as refused:
        PeftTuner("oft", None, {"coft": True, "oft_block_size": 8}).build(backbone, torch.Generator())
    assert refused.value.where == "model.method.vision.eps"
