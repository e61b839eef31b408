"""What every method must keep: attach and detach, the trained set, caches, knock-outs, counts, and how it starts."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from experiments.commands.params import count
from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.adapter import Adapter
from lightning_m2pt.methods.aprompt import APrompt
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.system.tensor_hashes import hash_tensors
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.trained_parameters import freeze_all_but_declared, trained_parameters

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
    "adapter": lambda: Adapter(4),
    "adapter behind the mlp": lambda: Adapter(4, placement="mlp"),
    "layernorm": LayerNormTuning,
    "layernorm with tower": lambda: LayerNormTuning(vision=True),
    "full": Full,
    "projector": lambda: M2PT(0, 0),
    "lora and visual prompts": lambda: Combined([Lora(2), M2PT(5, 0, interaction=False)]),
    "adapter, lora, norms": lambda: Combined(
        [Adapter(4), Lora(2, interaction=False), LayerNormTuning(interaction=False)]
    ),
    "aprompt and visual prompts": lambda: Combined([M2PT(5, 0), APrompt(3, 4, interaction=False)]),
}
START_AS_FROZEN = [
    "lora",
    "lora with tower",
    "adapter",
    "adapter behind the mlp",
    "layernorm",
    "layernorm with tower",
    "full",
    "projector",
    "adapter, lora, norms",
]


def built(name: str, backbone: OpenClipLlama, *, moved: bool = True) -> Method:
    """Returns a method whose tensors have moved away from where they start."""
    method, generator = METHODS[name](), torch.Generator().manual_seed(5)
    method.check(backbone.shape)
    method.build(backbone, generator)
    if moved:
        with torch.no_grad():
            for _, parameter in (named for tensors in method.parts().values() for named in tensors):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return method.eval()


def logits_of(backbone: OpenClipLlama, dtype: torch.dtype = torch.float32, **arguments: int) -> Tensor:
    with torch.no_grad():
        return backbone.logits(backbone(random_batch(dtype=dtype, **arguments)).hidden_states)


def everything_of(backbone: OpenClipLlama) -> tuple[str, list[int], list[str]]:
    """Returns weights, identities of tensors, and hooks and shadowed methods of every module."""
    hooks = [
        f"{name} {len(module._forward_hooks)} {len(module._forward_pre_hooks)} {'attention' in vars(module)}"
        for name, module in backbone.named_modules()
    ]
    return hash_tensors(backbone.state_dict()), [id(tensor) for tensor in backbone.parameters()], hooks


@pytest.mark.parametrize("name", METHODS)
def test_detaching_gives_the_very_backbone_back(tmp_path: Path, name: str) -> None:
    backbone = random_backbone(tmp_path)
    before, logits = everything_of(backbone), logits_of(backbone)
    method = built(name, backbone)
    method.attach(backbone)
    attached = logits_of(backbone)
    assert attached.shape != logits.shape or not torch.allclose(attached, logits, atol=1e-4)
    greedy_answers(backbone, random_batch(), max_new_tokens=3, end_token_id=0)
    method.attach(backbone)
    method.detach(backbone)
    assert everything_of(backbone) == before
    assert torch.equal(logits_of(backbone), logits)


@pytest.mark.parametrize("name", START_AS_FROZEN)
def test_methods_that_start_at_zero_start_as_the_frozen_model(tmp_path: Path, name: str) -> None:
    backbone = random_backbone(tmp_path)
    logits = logits_of(backbone)
    built(name, backbone, moved=False).attach(backbone)
    assert torch.equal(logits_of(backbone), logits)


@pytest.mark.parametrize("name", METHODS)
def test_trained_is_declared_whatever_is_attached(tmp_path: Path, name: str) -> None:
    backbone = random_backbone(tmp_path)
    method = built(name, backbone)
    module = TuningModule(backbone, method)
    freeze_all_but_declared(module, method)
    names = [f"method.{tensor}" for tensors in method.parts().values() for tensor, _ in tensors]
    assert sorted(trained_parameters(module)) == sorted(names)
    method.attach(backbone)
    assert sorted(trained_parameters(module)) == sorted(names)
    assert list(method.parts()) == method.part_names()
    assert set(method.part_names()) <= set(method.possible_parts())
    assert set(method.added_parameters()) == set(method.part_names())
    assert {parameter.dtype for tensors in method.parts().values() for _, parameter in tensors} == {torch.float32}


@pytest.mark.parametrize("name", METHODS)
def test_gradients_reach_what_is_declared_and_nothing_else(tmp_path: Path, name: str) -> None:
    backbone = random_backbone(tmp_path)
    method = built(name, backbone)
    module = TuningModule(backbone, method)
    freeze_all_but_declared(module, method)
    method.attach(backbone)
    supervised_rows(backbone, random_batch()).losses.sum().backward()
    dead = method.dead_rows()
    for tensor_name, parameter in (named for tensors in method.parts().values() for named in tensors):
        assert parameter.grad is not None, tensor_name
        rows = parameter.grad.reshape(-1, parameter.shape[-1]).ne(0).any(dim=-1)
        if "embed_tokens" not in tensor_name:
            assert (~rows).nonzero().flatten().tolist() == dead.get(tensor_name, []), tensor_name
    assert {id(p) for p in module.parameters() if p.grad is not None} == {
        id(p) for tensors in method.parts().values() for _, p in tensors
    }


@pytest.mark.parametrize("name", METHODS)
def test_late_starters_are_declared(tmp_path: Path, name: str) -> None:
    backbone = random_backbone(tmp_path)
    method = built(name, backbone, moved=False)
    module = TuningModule(backbone, method)
    freeze_all_but_declared(module, method)
    method.attach(backbone)
    supervised_rows(backbone, random_batch()).losses.sum().backward()
    zero = {
        tensor_name
        for tensors in method.parts().values()
        for tensor_name, parameter in tensors
        if parameter.grad is not None and not parameter.grad.any()
    }
    declared = {tensor for tensor in method.may_start_without_gradient() if "embed_tokens" not in tensor}
    assert zero == declared


@pytest.mark.parametrize("name", METHODS)
def test_cached_decoding_is_an_argmax_loop(tmp_path: Path, name: str) -> None:
    """Positions, masks and caches with rows and keys in front: each token again from the whole sequence."""
    backbone = random_backbone(tmp_path, torch.float64)
    built(name, backbone).attach(backbone)
    batch = random_batch(size=2, answer=0, dtype=torch.float64)
    with torch.no_grad():
        embeddings, _, spans = backbone.assemble(batch)
        state = backbone.prefill(batch)
        rows = [embeddings[sample, : int((spans[sample] > 0).sum())] for sample in range(2)]
        for _ in range(3):
            whole = torch.stack([backbone.logits(backbone.decode_rows(row[None]))[0, -1] for row in rows])
            assert torch.allclose(state.logits, whole, atol=1e-6)
            tokens = whole.argmax(dim=-1)
            embedded = backbone.token_embedding()(tokens)
            rows = [torch.cat([row, embedded[sample : sample + 1]]) for sample, row in enumerate(rows)]
            state = backbone.advance(state, tokens)


@pytest.mark.parametrize("name", METHODS)
def test_knocking_everything_out_is_the_frozen_model(tmp_path: Path, name: str) -> None:
    backbone = random_backbone(tmp_path)
    logits = logits_of(backbone)
    method = built(name, backbone)
    method.attach(backbone)
    method.attach(backbone, without=set(method.part_names()))
    assert torch.equal(logits_of(backbone), logits)
    with pytest.raises(BadInputError, match="no part 'nonsense'"):
        method.attach(backbone, without={"nonsense"})


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_any_frozen_type(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    backbone = random_backbone(tmp_path, dtype)
    method = built(name, backbone)
    method.attach(backbone)
    supervised_rows(backbone, random_batch(dtype=dtype)).losses.sum().backward()
    greedy_answers(backbone, random_batch(dtype=dtype), max_new_tokens=3, end_token_id=0)
    assert {parameter.dtype for tensors in method.parts().values() for _, parameter in tensors} == {torch.float32}


@pytest.mark.parametrize("name", METHODS)
def test_counted_on_meta_is_what_is_built(tmp_path: Path, name: str) -> None:
    backbone = random_backbone(tmp_path)
    trained = sum(p.numel() for tensors in built(name, backbone).parts().values() for _, p in tensors)
    unbuilt = OpenClipLlama(str(tmp_path / "open_clip_config.json"), "none", str(tmp_path), "none", "none")
    assert count(TuningModule(unbuilt, METHODS[name]()))["trained"] == trained


@pytest.mark.parametrize("name", METHODS)
def test_the_base_is_counted_without_what_is_attached(tmp_path: Path, name: str) -> None:
    backbone = random_backbone(tmp_path)
    untouched = backbone.base_parameters()
    assert untouched == sum(p.numel() for n, p in backbone.named_parameters() if n != "vision_tower.proj")
    built(name, backbone).attach(backbone)
    assert backbone.base_parameters() == untouched


@pytest.mark.parametrize("name", METHODS)
def test_same_generator_same_tensors_whatever_came_before(tmp_path: Path, name: str) -> None:
    backbone, hashes = random_backbone(tmp_path), []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        state = torch.random.get_rng_state()
        method = built(name, backbone, moved=False)
        assert torch.equal(torch.random.get_rng_state(), state)
        hashes.append(hash_tensors({n: p for tensors in method.parts().values() for n, p in tensors}))
    assert hashes[0] == hashes[1]


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
    "method", [Lora(2, dropout=0.5), PrefixTuning(4, dropout=0.5), M2PT(5, 4, dropout=0.5)], ids=lambda each: each.name
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


@pytest.mark.parametrize("name", ["layernorm with tower", "lora with tower"])
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


@pytest.mark.parametrize("name", ["aprompt", "aprompt and visual prompts"])
def test_prefixes_in_a_cache_refuse_recomputed_activations(tmp_path: Path, name: str) -> None:
    backbone = random_backbone(tmp_path)
    METHODS[name]().check(backbone.shape)
    backbone.shape.recomputes_activations = True
    with pytest.raises(BadInputError, match="activation_checkpointing"):
        METHODS[name]().check(backbone.shape)
