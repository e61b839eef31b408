"""What every method must keep: attach and detach, the trained set, caches, knock-outs, counts, and how it starts."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from experiments.commands.params import count
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.adapter import Adapter
from lightning_m2pt.methods.aprompt import APrompt
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.frozen import Frozen
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.peft_tuner import PeftTuner
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.testing.method_contract import method_contract, moved
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch
from lightning_m2pt.tuning.module import TuningModule

METHODS: dict[str, Callable[[], Method]] = {
    "m2pt": lambda: M2PT(5, 4),
    "vpt": lambda: M2PT(5, 0, visual_rows_to_text="none", visual_position="after_cls", init="vpt_uniform"),
    "vpt shallow": lambda: M2PT(
        5, 0, visual_rows_to_text="none", visual_position="after_cls", visual_depth="shallow", init="vpt_uniform"
    ),
    "ptum": lambda: M2PT(0, 4),
    "ptum prefix": lambda: PrefixTuning(4),
    "ptum prefix reparameterised": lambda: PrefixTuning(4, reparameterisation=6),
    "aprompt": lambda: APrompt(3, 4),
    "aprompt without query prompts": lambda: APrompt(3, 4, query_prompts=False),
    "aprompt without keys and values": lambda: APrompt(3, 0),
    "lora": lambda: Lora(2),
    "lora with tower": lambda: Lora(2, vision=True, dropout=0.0),
    "dora with tower": lambda: PeftTuner(
        "lora", {"r": 2, "use_dora": True}, {"r": 3, "use_rslora": True, "target_modules": ["c_fc"]}, split_factors=True
    ),
    "pissa": lambda: PeftTuner("lora", {"r": 2, "init_lora_weights": "pissa"}),
    "adapter": lambda: Adapter(4),
    "adapter behind the mlp": lambda: Adapter(4, placement="mlp"),
    "layernorm": LayerNormTuning,
    "layernorm with tower": lambda: LayerNormTuning(vision=True),
    "full": Full,
    "projector": lambda: M2PT(0, 0),
    "lora and visual prompts": lambda: Combined([Lora(2), M2PT(5, 0, interaction=False)]),
    "lora and m2pt": lambda: Combined([Lora(2, interaction=False), M2PT(5, 4)]),
    "full and prompts": lambda: Combined([Full(), M2PT(5, 4, interaction=False)]),
    "adapter, lora, norms": lambda: Combined(
        [Adapter(4), Lora(2, interaction=False), LayerNormTuning(interaction=False)]
    ),
    "pixels on top": PixelPrompting,
    "pixels around": lambda: PixelPrompting(compose="shrink", fill=(0.2, 0.5, 0.7)),
    "pixels and prompts": lambda: Combined([PixelPrompting(space="normalised", init_std=1.0), M2PT(5, 4)]),
    "aprompt and visual prompts": lambda: Combined([M2PT(5, 0), APrompt(3, 4, interaction=False)]),
}
START_AS_FROZEN = [
    "lora",
    "lora with tower",
    "dora with tower",
    "adapter",
    "adapter behind the mlp",
    "layernorm",
    "layernorm with tower",
    "full",
    "projector",
    "adapter, lora, norms",
    "pixels on top",
]


def built(name: str, backbone: Backbone) -> Method:
    """Returns a method whose tensors have moved away from where they start."""
    return moved(METHODS[name], backbone)


def logits_of(backbone: Backbone) -> Tensor:
    with torch.no_grad():
        return backbone.logits(backbone(random_batch()).hidden_states)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_the_contract(name: str) -> None:
    method_contract(METHODS[name], starts_as_frozen=name in START_AS_FROZEN)


def test_the_untouched_model_keeps_the_contract_of_methods() -> None:
    method_contract(Frozen, starts_as_frozen=True)


@pytest.mark.parametrize("name", ["m2pt", "full", "lora with tower"])
def test_what_is_trained_is_counted_as_params_does(tmp_path: Path, name: str) -> None:
    backbone = random_backbone(tmp_path)
    trained = sum(tensor.numel() for tensor in built(name, backbone).named_tensors().values())
    base = sum(p.numel() for n, p in backbone.named_parameters() if n != "vision_tower.proj")
    assert backbone.base_parameters() == base
    unbuilt = OpenClipLlama(str(tmp_path / "open_clip_config.json"), "none", str(tmp_path), "none", "none")
    assert count(TuningModule(unbuilt, METHODS[name]()))["trained"] == trained


def test_merged_low_rank_updates_equal_attached_ones(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path)
    built("lora with tower", backbone).attach(backbone)
    attached = logits_of(backbone)
    layers = [module for module in backbone.modules() if hasattr(module, "lora_A")]
    for layer in layers:
        layer.merge()
    assert len(layers) == 7 * 3 + 2 * 3
    assert all(layer.merged for layer in layers)
    assert torch.allclose(logits_of(backbone), attached, atol=1e-5)


@pytest.mark.parametrize(
    "method",
    [
        Lora(2, dropout=0.5),
        PeftTuner("lora", {"r": 2, "lora_dropout": 0.5}),
        PrefixTuning(4, dropout=0.5),
        M2PT(5, 4, dropout=0.5),
    ],
    ids=lambda each: each.name,
)
def test_dropout_follows_the_method_not_the_backbone(tmp_path: Path, method: Method) -> None:
    backbone = random_backbone(tmp_path)
    method.build(backbone, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.3)
    module = TuningModule(backbone, method)
    method.attach(backbone)
    module.train()
    assert not torch.equal(logits_of(backbone), logits_of(backbone))
    module.eval()
    assert torch.equal(logits_of(backbone), logits_of(backbone))


@pytest.mark.parametrize("name", ["layernorm with tower", "lora with tower", "pissa"])
@pytest.mark.parametrize("is_knocked_out", [False, True])
def test_originals_follow_the_model_to_another_device(tmp_path: Path, name: str, is_knocked_out: bool) -> None:
    backbone = random_backbone(tmp_path)
    method = built(name, backbone)
    method.attach(backbone)
    TuningModule(backbone, method).to("meta")  # a device like any other
    if is_knocked_out:
        method.attach(backbone, without=set(method.part_names()))
    else:
        method.detach(backbone)
    assert {parameter.device.type for parameter in backbone.parameters()} == {"meta"}


def test_an_update_is_alpha_over_r_times_b_a(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path)
    linear = backbone.language_model.model.layers[0].mlp.up_proj
    method = Lora(rank=2, alpha=6.0, dropout=0.0)
    method.build(backbone, torch.Generator().manual_seed(1))
    tensors = dict(named for tensors in method.parts().values() for named in tensors)
    prefix = "language_low_rank.model.layers.0.mlp.up_proj"
    a, b = tensors[f"{prefix}.lora_A.weight"], tensors[f"{prefix}.lora_B.weight"]
    bound = a.shape[1] ** -0.5  # Kaiming-uniform with a = sqrt(5)
    assert 0.5 * bound < float(a.detach().abs().max()) <= bound
    assert not b.any()
    nn.init.normal_(b)
    method.attach(backbone)
    states = torch.randn(3, a.shape[1])
    wrapped = backbone.language_model.model.layers[0].mlp.up_proj
    assert torch.allclose(wrapped(states), linear(states) + 6.0 / 2 * states @ a.T @ b.T, atol=1e-5)


@pytest.mark.parametrize(
    ("methods", "place"),
    [
        ([Lora(2), M2PT(5, 0)], "projector"),
        ([Lora(2, interaction=False), Full(vision=False, interaction=False)], "language model's linear layers"),
        ([APrompt(), M2PT(0, 4, interaction=False)], "textual prompts"),
        ([LayerNormTuning(interaction=False), Full()], "language model's norms"),
    ],
    ids=str,
)
def test_methods_that_change_the_same_place_are_refused(methods: list[Method], place: str) -> None:
    with pytest.raises(BadInputError, match=place):
        Combined(methods)


def test_a_combination_needs_two_different_methods() -> None:
    for methods in ([], [Lora(2)], [M2PT(5, 0), M2PT(0, 4)]):
        with pytest.raises(BadInputError, match="each once"):
            Combined(methods)


@pytest.mark.parametrize(
    ("constructor", "arguments"),
    [
        (Lora, {"rank": 0}),
        (Lora, {"alpha": 0.0}),
        (Lora, {"dropout": 1.0}),
        (Adapter, {"size": 0}),
        (PrefixTuning, {"length": 0}),
        (PrefixTuning, {"reparameterisation": 0}),
        (PrefixTuning, {"init_std": 0.0}),
        (PrefixTuning, {"dropout": -0.1}),
        (APrompt, {"input_length": 0}),
        (APrompt, {"attention_length": -1}),
        (APrompt, {"init_std": 0.0}),
    ],
    ids=str,
)
def test_arguments_that_mean_nothing_are_refused_by_name(
    constructor: Callable[..., Method], arguments: dict[str, float]
) -> None:
    with pytest.raises(BadInputError, match=rf"model\.method\.{next(iter(arguments))}"):
        constructor(**arguments)
    with pytest.raises(BadInputError, match="both false"):
        LayerNormTuning(language=False)
