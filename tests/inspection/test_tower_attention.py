"""Attention maps of towers that are not open_clip's: those that transformers itself gives out, and timm's by value."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_m2pt.backbones.library_forward import put_before
from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inspection.attention import capture_attention
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.testing.passes import batch_for
from tests.support.towers.small import LAYERS, PATCHES
from tests.support.towers.stored_pairs import store_pair, stored_pair

LENGTH = 3


def pair(folder: Path, tower: str) -> TowerAndDecoder:
    store_pair(folder, tower)
    backbone = stored_pair(folder, "float64")
    backbone.load()
    return backbone


def with_prompts(backbone: TowerAndDecoder, path: str) -> M2PT:
    method = M2PT(LENGTH, 0, visual_rows_to_text="none", init="normal", init_std=0.5, path=path)
    method.build(backbone, torch.Generator().manual_seed(7))
    method.double().attach(backbone)
    return method


def of_library(backbone: TowerAndDecoder, pixels: Tensor, method: M2PT | None) -> list[Tensor]:
    """Returns what transformers calls ``attentions``, prompt rows put in by hooks: (B, H, S, S) of the used blocks."""
    tower, hooks = backbone.vision_tower, []
    rows = method.visual_prompts.layer_rows() if method is not None and method.visual_prompts is not None else []
    for layer, (block, own) in enumerate(zip(backbone.tower_blocks(), rows, strict=False)):
        assert own is not None
        hooks.append(block.register_forward_pre_hook(put_before(own, LENGTH if layer else 0)))
    chosen, tower.config._attn_implementation = tower.config._attn_implementation, "eager"
    found = tower(pixels, output_attentions=True).attentions[: LAYERS - 1]
    tower.config._attn_implementation = chosen
    for hook in hooks:
        hook.remove()
    return list(found)


@pytest.mark.parametrize("path", ["auto", None])
@pytest.mark.parametrize("tower", ["clip", "siglip", "dinov2", "dinov3"])
def test_maps_are_what_the_library_gives_out(tmp_path: Path, tower: str, path: str | None) -> None:
    backbone = pair(tmp_path, tower)
    method = None if path is None else with_prompts(backbone, path)
    batch = batch_for(backbone)
    samples = capture_attention(backbone, batch)
    backbone.release_hooks()
    with torch.no_grad():
        expected = of_library(backbone, batch.pixel_values, method)
    names = [Span.VISUAL_PROMPT] * (LENGTH * (path is not None)) + [Span.CLS] * backbone.shape.vision_rows_in_front
    for number, sample in enumerate(samples):
        assert len(sample.vision) == 1
        assert len(sample.vision[0]) == LAYERS - 1
        for layer, found in enumerate(sample.vision[0]):
            torch.testing.assert_close(found.probabilities, expected[layer][number], rtol=1e-6, atol=1e-7)
            assert found.spans.tolist() == names + [Span.PATCH] * PATCHES
            assert found.prompts == LENGTH * (path is not None)


@pytest.mark.parametrize("path", ["auto", None])
def test_maps_of_timm_sum_to_one_and_are_named(tmp_path: Path, path: str | None) -> None:
    """That they give back what each module returned is looked at wherever maps are read."""
    backbone = pair(tmp_path, "timm with registers")
    if path is not None:
        with_prompts(backbone, path)
    for sample in capture_attention(backbone, batch_for(backbone)):
        for found in sample.vision[0]:
            torch.testing.assert_close(found.probabilities.sum(-1), torch.ones(3, len(found.spans)).double())
            prompts = [Span.VISUAL_PROMPT] * (LENGTH * (path is not None))
            assert found.spans.tolist() == prompts + [Span.CLS] * 5 + [Span.PATCH] * PATCHES
