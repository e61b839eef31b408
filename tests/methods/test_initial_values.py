"""Where tensors start, by value: bounds and deviations of prompts, LoRA's scale, and that a seed decides them."""

import math

import pytest
import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.feature_cache import FeatureCache
from lightning_m2pt.methods.layer_norm import Float32Norm
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.prompts.deep import DeepPrompts
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch
from lightning_m2pt.tuning.module import TuningModule
from tests.support.stored_backbone import store_backbone, stored

LENGTH, WIDTH = 40, 512
XAVIER_BOUND = math.sqrt(6 / (WIDTH * (LENGTH + 1)))
"""Of a tensor (1, P, D): its fan-in is P x D and its fan-out D."""


def prompts_of(init: str, seed: int = 1, std: float = 0.02, **sources: object) -> Tensor:
    prompts = DeepPrompts([0, 2], 3, LENGTH, WIDTH, 0.0)
    prompts.initialise(init, std, torch.Generator().manual_seed(seed), **sources)
    return torch.stack([each.detach() for each in prompts.rows.values()])


@pytest.mark.parametrize(
    ("arguments", "bound"),
    [
        ({"init": "xavier_uniform"}, XAVIER_BOUND),
        ({"init": "vpt_uniform", "patch_size": 14}, math.sqrt(6 / (3 * 14 * 14 + WIDTH))),
    ],
    ids=str,
)
def test_uniform_prompts_fill_their_bound(arguments, bound):
    values = prompts_of(**arguments)
    assert 0.999 * bound < float(values.max()) <= bound
    assert -bound <= float(values.min()) < -0.999 * bound
    assert float(values.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert abs(float(values.mean())) < 0.02 * bound


@pytest.mark.parametrize("init", ["vocabulary", "vpt_uniform"])
def test_a_start_without_what_it_needs_is_no_other_start(init):
    with pytest.raises(ValueError, match=r"no (vocabulary|size of a patch) is given"):
        prompts_of(init)


@pytest.mark.parametrize(("init", "part"), [("vocabulary", "visual_prompts"), ("vpt_uniform", "textual_prompts")])
def test_the_side_that_has_no_such_start_begins_as_published(tmp_path, init, part):
    backbone = random_backbone(tmp_path)
    method = M2PT(30, 30, init=init)
    method.build(backbone, torch.Generator().manual_seed(1))
    for row in getattr(method, part).rows.values():
        bound = math.sqrt(6 / (row.shape[-1] * 31))
        assert 0.98 * bound < float(row.detach().abs().max()) <= bound


@pytest.mark.parametrize("std", [0.02, 1.5])
def test_normal_prompts_have_their_deviation(std):
    values = prompts_of("normal", std=std)
    assert float(values.std()) == pytest.approx(std, rel=0.02)
    assert abs(float(values.mean())) < 0.02 * std
    assert float(values.abs().max()) > 3 * std  # not cut off
    assert not torch.equal(values[0], values[1])  # every layer is drawn anew


def test_prompts_from_the_vocabulary_are_its_rows():
    vocabulary = torch.randn(30, WIDTH)
    rows = prompts_of("vocabulary", vocabulary=vocabulary).view(-1, WIDTH)
    found = {int((vocabulary == row).all(dim=1).nonzero()) for row in rows}
    assert len(found) > 20


@pytest.mark.parametrize("part", ["visual", "textual"])
def test_the_methods_own_settings_reach_its_prompts(tmp_path, part):
    """The deviation of both tables; a wide one, so that Xavier's bound cannot be taken for it."""
    backbone = random_backbone(tmp_path)
    method = M2PT(30, 30, init="normal", init_std=0.7)
    method.build(backbone, torch.Generator().manual_seed(1))
    table = method.visual_prompts if part == "visual" else method.textual_prompts
    values = torch.cat([each.detach().flatten() for each in table.rows.values()])
    assert float(values.std()) == pytest.approx(0.7, rel=0.03)


def test_the_seed_and_nothing_else_decides_the_prompts(tmp_path):
    """As a run makes them: whatever was drawn before, the same seed gives the same numbers, and another others."""
    store_backbone(tmp_path)

    def prompts(seed: int, drawn_before: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        torch.randn(drawn_before)
        module = TuningModule(stored(tmp_path), M2PT(2, 2))
        module.configure_model()
        return {name: each.detach().clone() for name, each in module.method.named_tensors().items()}

    one, same, other = prompts(5, 0), prompts(5, 3), prompts(6, 0)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert {name for name in one if not torch.equal(one[name], other[name])} == {
        name for name in one if "prompts" in name
    }
    generator = torch.Generator().manual_seed(5)
    expected = nn.init.xavier_uniform_(torch.empty(1, 2, 32), generator=generator)  # the first table is the first draw
    assert torch.equal(one["visual_prompts.rows.0"], expected)


@pytest.mark.parametrize(("rank", "alpha", "scale"), [(1, None, 2.0), (4, None, 2.0), (4, 3.0, 0.75), (2, 8.0, 4.0)])
def test_an_updates_scale_is_alpha_over_r_and_alpha_is_twice_r_unless_set(tmp_path, rank, alpha, scale):
    backbone = random_backbone(tmp_path)
    linear = backbone.language_model.model.layers[1].self_attn.v_proj
    method = Lora(rank, alpha, dropout=0.0)
    assert method.adapter_config()["alpha"] == scale * rank
    method.build(backbone, torch.Generator().manual_seed(1))
    tensors, prefix = method.named_tensors(), "language_low_rank.model.layers.1.self_attn.v_proj"
    a, b = tensors[f"{prefix}.lora_A.weight"], tensors[f"{prefix}.lora_B.weight"]
    assert a.shape[0] == b.shape[1] == rank
    nn.init.normal_(b)
    method.attach(backbone)
    states = torch.randn(3, a.shape[1])
    update = backbone.language_model.model.layers[1].self_attn.v_proj(states) - linear(states)
    assert torch.allclose(update, scale * states @ a.T @ b.T, atol=1e-4)


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_a_trained_norm_computes_in_float32_over_bfloat16(kind):
    """Gains are kept in float32, and the means and the product are float32's: bfloat16 would be off by 1%."""
    norm = nn.LayerNorm(64) if kind == "layer" else nn.RMSNorm(64, eps=1e-6)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(1 + 0.3 * torch.randn(64, generator=generator))
    stand_in = Float32Norm(norm.bfloat16())
    gain = stand_in.norm.weight
    assert gain.dtype == torch.float32
    with torch.no_grad():
        gain.add_(1e-4)  # lost in bfloat16, where one and the next number are 8e-3 apart
    states = (100 + torch.randn(8, 64, generator=generator)).bfloat16()
    wide = states.double()
    centred = wide - wide.mean(dim=-1, keepdim=True) if kind == "layer" else wide
    size = (centred.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt()
    expected = centred / size * gain.double() + (stand_in.norm.bias.double() if kind == "layer" else 0.0)
    found = stand_in(states)
    assert found.dtype == torch.bfloat16
    nearest = expected.bfloat16()
    assert float((found != nearest).double().mean()) < 0.02  # ties of float32's own rounding
    float32_alone = stand_in.norm(states.float())
    assert float((float32_alone.detach().double() - expected).abs().max()) < 1e-3


@pytest.mark.parametrize("first", ["plain", "autocast"])
def test_features_of_another_precision_are_other_features(tmp_path, first):
    """A run in mixed precision reads nothing that one in float32 has stored, and the other way round."""
    backbone = random_backbone(tmp_path)
    backbone.requires_grad_(False)
    backbone.feature_cache = FeatureCache(tmp_path / "features", 10**7, "a tower")
    pixels = random_batch().pixel_values
    plain = first == "plain"
    for is_plain in (plain, not plain, plain, not plain):
        with torch.autocast("cpu", torch.bfloat16, enabled=not is_plain):
            cache, backbone.feature_cache = backbone.feature_cache, None
            expected = backbone.visual_rows(pixels).rows
            backbone.feature_cache = cache
            found = backbone.visual_rows(pixels).rows
        assert torch.equal(found, expected)
    assert len(list((tmp_path / "features").glob("*/*/*.safetensors"))) == 6


def test_features_follow_pixels_and_every_tensor_of_the_tower(tmp_path):
    backbone = random_backbone(tmp_path)
    backbone.requires_grad_(False)
    pixels = random_batch(1).pixel_values
    cache = FeatureCache(tmp_path / "features", 10**7, "a tower")
    keys = {tuple(cache._keys(backbone.vision_tower, pixels))}
    changed = pixels.clone()
    changed[0, 2, -1, -1] += 1e-6
    keys.add(tuple(cache._keys(backbone.vision_tower, changed)))
    keys.add(tuple(cache._keys(backbone.vision_tower, pixels.view(1, 3, 8, 32))))
    for dtype in (torch.bfloat16, torch.float16):  # the same bytes are other numbers
        keys.add(tuple(cache._keys(backbone.vision_tower, torch.zeros(pixels.shape, dtype=dtype))))
    assert len(keys) == 5
    names = set()
    for name, tensor in [("", torch.zeros(1)), *backbone.vision_tower.state_dict().items()]:
        flat = tensor.view(-1)
        before = flat[-1].clone()
        flat[-1] += 1
        other = FeatureCache(tmp_path / "features", 10**7, "a tower")
        other._keys(backbone.vision_tower, pixels)
        names.add(other.path_of("k").parent.parent.name)
        flat[-1] = before
        assert name == "" or len(names) > 1
    assert len(names) == 1 + len(backbone.vision_tower.state_dict())
