"""LoRA in some layers, with ranks and alphas of their own, and in the projector."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.lora import Lora, linear_layers
from lightning_m2pt.testing.method_contract import method_contract
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch

CHOICE: dict[str, Any] = {
    "targets": ["q_proj", "mlp.down_proj", "c_fc", "projector"],
    "ranks": {"q_proj": 3, "layers.1.self_attn.q_proj": 4},
    "alphas": {"down_proj": 5.0, "language_model.model.layers.0.mlp.down_proj": 7.0},
}


def chosen() -> Lora:
    return Lora(2, 6.0, dropout=0.0, vision=True, interaction=False, projector=True, **CHOICE)


def test_it_keeps_the_contract() -> None:
    method_contract(chosen, starts_as_frozen=True)


def logits(backbone: OpenClipLlama) -> Tensor:
    with torch.no_grad():
        return backbone.logits(backbone(random_batch(dtype=torch.float64)).hidden_states)


def test_what_is_wrapped_is_the_merged_layer(tmp_path: Path) -> None:
    """The reference adds alpha / r B A to the weights of copies of the very layers that the words mean."""
    backbone, reference, method = (
        random_backbone(tmp_path, torch.float64),
        random_backbone(tmp_path, torch.float64),
        chosen(),
    )
    method.build(backbone, torch.Generator().manual_seed(0))
    method.double()
    with torch.no_grad():
        for number, tensor in enumerate(method.parameters()):
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number)).double())
    tensors, frozen, expected = method.named_tensors(), logits(backbone), {}
    for layer in range(3):
        name = f"language_model.model.layers.{layer}"
        expected[f"{name}.self_attn.q_proj"] = (4 if layer == 1 else 3, 6.0)
        expected[f"{name}.mlp.down_proj"] = (2, 7.0 if layer == 0 else 5.0)
        expected[f"vision_tower.transformer.resblocks.{layer}.mlp.c_fc"] = (2, 6.0)
    expected["projector"] = (2, 6.0)
    parts = {
        "language_model": "language_low_rank",
        "vision_tower": "vision_low_rank",
        "projector": "projector_low_rank",
    }
    for place, (rank, alpha) in expected.items():
        first, _, rest = place.partition(".")
        begin = f"{parts[first]}.{rest or first}"
        down, up = tensors[f"{begin}.lora_A.weight"], tensors[f"{begin}.lora_B.weight"]
        assert down.shape[0] == up.shape[1] == rank
        with torch.no_grad():
            reference.get_submodule(place).weight.add_(alpha / rank * up @ down)
    assert len(tensors) == 2 * len(expected)
    method.attach(backbone)
    torch.testing.assert_close(logits(backbone), logits(reference), rtol=1e-10, atol=1e-10)
    assert float((logits(backbone) - frozen).abs().max()) > 0.01
    method.detach(backbone)
    assert torch.equal(logits(backbone), frozen)


def test_without_a_choice_an_adapter_says_what_it_said() -> None:
    assert Lora(2).adapter_config() == {"rank": 2, "alpha": 4.0, "vision": False, "interaction": True}
    assert Lora(2).possible_parts() == ["language_low_rank", "vision_low_rank", "interaction"]
    own = chosen().adapter_config()
    assert Lora(**own, dropout=0.0).adapter_config() == own


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a name of nothing": ({"targets": ["q_proj", "query"]}, "no wrapped linear layer is called 'query'"),
    "half a step": ({"targets": ["proj"]}, "targets name no linear layer of language"),
    "the head": ({"targets": ["q_proj", "lm_head"]}, "no wrapped linear layer is called 'lm_head'"),
    "no name": ({"targets": []}, "targets name no linear layer of language"),
    "the tower alone": ({"targets": ["c_fc"], "vision": True}, "targets name no linear layer of language"),
    "a rank of what is not wrapped": ({"targets": ["q_proj"], "ranks": {"v_proj": 4}}, "called 'v_proj'"),
    "an alpha of what is not there": ({"alphas": {"x": 4.0}}, "called 'x'"),
    "rank 0": ({"ranks": {"q_proj": 0}}, "0 is too small"),
    "a negative alpha": ({"alphas": {"q_proj": -1.0}}, "-1 is not positive"),
    "the projector twice": ({"projector": True}, "low-rank updates of it besides"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_without_weights(name: str, tmp_path: Path) -> None:
    arguments, expected = REFUSED[name]
    random_backbone(tmp_path)
    backbone = OpenClipLlama(str(tmp_path / "open_clip_config.json"), "none", str(tmp_path), "none", "none")
    backbone.build_on_meta()
    with pytest.raises(BadInputError, match=expected) as caught:
        Lora(2, **arguments).build(backbone, torch.Generator())
    assert caught.value.where.startswith("model.method.")


def test_a_bare_projector_is_a_linear_layer(tmp_path: Path) -> None:
    assert list(linear_layers(random_backbone(tmp_path), "interaction")) == ["projector"]
