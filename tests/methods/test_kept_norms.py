"""DoRA's norms are peft's to the last bit, and are taken once where no weight changes."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.quantised import QuantisedLinear
from lightning_m2pt.methods.peft_tuner import PeftTuner
from lightning_m2pt.system.hidden_modules import hidden_module
from lightning_m2pt.testing.random_backbone import TEXT_LAYERS, random_backbone
from tests.support.quantised_backbone import quantised
from tests.support.stored_backbone import store_backbone

LAYERS = 7 * TEXT_LAYERS
ROWS = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the norms that peft takes: one number in a list for each."""
    with hidden_module("bitsandbytes"):
        from peft.tuners.lora.dora import DoraLinearLayer
    found: list[int] = []
    own = DoraLinearLayer.get_weight_norm

    def counted(self: Any, *arguments: Any, **named: Any) -> Tensor:
        found.append(len(found))
        return own(self, *arguments, **named)

    monkeypatch.setattr(DoraLinearLayer, "get_weight_norm", counted)
    return found


def tuned(backbone: Backbone, taken: list[int]) -> PeftTuner:
    """Returns DoRA in all linear layers of a language model, moved away from its start."""
    method = PeftTuner("lora", {"r": 3, "use_dora": True}, interaction=False)
    method.build(backbone, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in method.named_tensors().values():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    method.attach(backbone)
    taken.clear()  # those of its start
    return method


def logits(backbone: Any, rows: Tensor = ROWS) -> Tensor:
    """Returns the language model's, by the library's own pass."""
    found: Tensor = backbone.language_model(inputs_embeds=rows.to(backbone.dtype)).logits.detach()
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_norms_are_taken_once_and_change_no_bit(
    tmp_path: Path, taken: list[int], dtype: torch.dtype, mode: Callable[[], AbstractContextManager[None]]
) -> None:
    backbone = random_backbone(tmp_path, dtype)
    tuned(backbone, taken)
    expected = logits(backbone)  # with gradients it is peft's pass alone
    assert len(taken) == LAYERS
    with mode():
        assert torch.equal(logits(backbone), expected)
        assert len(taken) == 2 * LAYERS
        others = logits(backbone, ROWS[:, :1])
        assert all(torch.equal(logits(backbone), expected) for _ in range(2))
    with torch.no_grad():  # what was kept in inference mode counts here
        assert torch.equal(logits(backbone), expected)
    assert len(taken) == 2 * LAYERS
    assert torch.equal(logits(backbone), expected)
    assert torch.equal(logits(backbone, ROWS[:, :1]), others)
    assert len(taken) == 4 * LAYERS


def in_place(tensor: Tensor) -> None:
    with torch.no_grad():
        tensor.mul_(1.5)


def stepped(tensor: Tensor) -> None:
    """Takes a step of AdamW, as training does between two validations."""
    tensor.grad = torch.ones_like(tensor)
    torch.optim.AdamW([tensor], lr=0.1).step()


def loaded(tensor: Tensor) -> None:
    with torch.no_grad():
        tensor.copy_(torch.full_like(tensor, 0.3))


def replaced(tensor: Tensor) -> None:
    tensor.data = tensor.data + 0.2


@pytest.mark.parametrize("change", [in_place, stepped, loaded, replaced])
@pytest.mark.parametrize("factor", ["lora_A", "lora_B", "base"])
def test_a_changed_weight_has_another_norm(
    tmp_path: Path, taken: list[int], change: Callable[[Tensor], None], factor: str
) -> None:
    backbone = random_backbone(tmp_path)
    tuned(backbone, taken)
    layer: Any = backbone.language_model.get_submodule("model.layers.1.mlp.up_proj")
    tensor = layer.base_layer.weight if factor == "base" else getattr(layer, factor)["default"].weight
    with torch.no_grad():
        before = logits(backbone)
    change(tensor)
    with torch.no_grad():
        after = logits(backbone)
    assert len(taken) == LAYERS + 1
    assert not torch.equal(after, before)
    assert torch.equal(after, logits(backbone))


def test_other_scales_and_types_have_other_norms(tmp_path: Path, taken: list[int]) -> None:
    backbone = random_backbone(tmp_path)
    tuned(backbone, taken)
    layer: Any = backbone.language_model.get_submodule("model.layers.0.self_attn.q_proj")
    with torch.no_grad():
        before = logits(backbone)
        layer.scaling["default"] *= 2
        twice = logits(backbone)
    assert len(taken) == LAYERS + 1
    assert not torch.equal(twice, before)
    with torch.autocast("cpu", torch.bfloat16):
        expected = logits(backbone)
        with torch.no_grad():
            logits(backbone)
            assert torch.equal(logits(backbone), expected)
    assert len(taken) == 3 * LAYERS + 1
    with torch.no_grad():
        logits(backbone)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(logits(backbone), expected)
        assert torch.equal(logits(backbone), twice)


def test_a_pass_with_gradients_forgets_what_was_kept(tmp_path: Path, taken: list[int]) -> None:
    """So that training is safe whatever changes its weights: here through ``.data``, which torch does not count."""
    backbone = random_backbone(tmp_path)
    method = tuned(backbone, taken)
    tensor = next(each for name, each in method.named_tensors().items() if name.endswith("lora_B.weight"))
    with torch.no_grad():
        logits(backbone)
    tensor.data.mul_(2)
    expected = logits(backbone)
    with torch.no_grad():
        assert torch.equal(logits(backbone), expected)


def test_a_packed_weight_is_unpacked_for_the_norm_alone(
    tmp_path: Path, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    store_backbone(tmp_path)
    backbone, own, unpacked = quantised(tmp_path, "int8"), QuantisedLinear.weight.fget, []
    monkeypatch.setattr(QuantisedLinear, "weight", property(lambda layer: unpacked.append(layer) or own(layer)))
    tuned(backbone, taken)
    expected = logits(backbone)
    unpacked.clear()
    with torch.no_grad():
        assert torch.equal(logits(backbone), expected)
        assert len({id(layer) for layer in unpacked}) == LAYERS
        unpacked.clear()
        assert torch.equal(logits(backbone), expected)
    assert (len(taken), unpacked) == (2 * LAYERS, [])


def test_a_layer_without_a_kept_norm_is_peft_s(tmp_path: Path, taken: list[int]) -> None:
    method, backbone = PeftTuner("lora", {"r": 2}, interaction=False), random_backbone(tmp_path)
    method.build(backbone, torch.Generator())
    method.attach(backbone)
    with torch.no_grad():
        assert torch.equal(logits(backbone), logits(backbone))
    assert taken == []
    layer: Any = backbone.language_model.get_submodule("model.layers.0.mlp.up_proj")
    assert isinstance(layer.base_layer, nn.Linear)
