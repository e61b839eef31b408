"""Pixel prompts on models that read pictures in tiles, and on pairs: zeros change nothing, tiles are the library's."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.prompts.pixel_prompt import Compose
from lightning_m2pt.testing.method_contract import method_contract
from lightning_m2pt.testing.passes import batch_for
from tests.backbones.test_tiles import CONFIGS, both
from tests.support.towers.float64_islands import float64_islands
from tests.support.towers.stored_pairs import store_pair, stored_pair
from tests.support.whole_models import llava_config, next_config, qwen_config, write_whole_model

BORDER, WIDTH, SIDE = 0.2, 3, 16
WHOLE = {"llava": llava_config, "next": next_config, **{name: CONFIGS[name] for name in ("onevision", "idefics3")}}


def found_in(backbone: Backbone, batch: Batch) -> tuple[Tensor, list[Sequence[int]]]:
    """Returns logits and greedy answers."""
    with torch.no_grad():
        logits = backbone.logits(backbone(batch).hidden_states)
    return logits, [each.token_ids for each in greedy_answers(backbone, batch, 4, -1)]


def attached(backbone: Backbone, **arguments: float) -> PixelPrompting:
    method = PixelPrompting(BORDER, **arguments)  # type: ignore[arg-type]
    method.build(backbone, torch.Generator().manual_seed(3))
    method.double().attach(backbone)
    return method


def changes_nothing_and_then_something(backbone: Backbone, batch: Batch) -> None:
    before = found_in(backbone, batch)
    attached(backbone)
    zeros = found_in(backbone, batch)
    assert torch.equal(zeros[0], before[0])
    assert zeros[1] == before[1]
    method = attached(backbone, init_std=1.0)
    assert float((found_in(backbone, batch)[0] - before[0]).abs().max()) > 1e-3
    method.attach(backbone, without={"pixel_prompt"})
    assert torch.equal(found_in(backbone, batch)[0], before[0])


@pytest.mark.parametrize("name", ["onevision", "next", "idefics3"])
def test_zeros_on_tiles_are_the_untouched_model(tmp_path: Path, name: str) -> None:
    case = both(tmp_path, name)
    changes_nothing_and_then_something(case.backbone, case.batch)


@pytest.mark.parametrize("tower", ["clip", "siglip"])
def test_zeros_on_a_pair_are_the_untouched_model(tmp_path: Path, tower: str) -> None:
    store_pair(tmp_path, tower)
    backbone = stored_pair(tmp_path, "float64")
    backbone.load()
    changes_nothing_and_then_something(backbone, batch_for(backbone, answers=False))


def composed(pixels: Tensor, delta: Tensor, mean: Tensor, std: Tensor, compose: Compose) -> Tensor:
    """Returns tiles with a prompt in each, by the formula alone."""
    border = torch.ones_like(delta)
    border[:, WIDTH:-WIDTH, WIDTH:-WIDTH] = 0
    tiles = (pixels * std + mean).flatten(0, -4)
    if compose == "shrink":
        inner = SIDE - 2 * WIDTH
        small = torch.nn.functional.interpolate(tiles, size=inner, mode="bicubic", antialias=True).clamp(0, 1)
        tiles = torch.nn.functional.pad(small, (WIDTH,) * 4)
    return ((tiles + border * delta - mean) / std).view(pixels.shape)


@pytest.mark.parametrize("compose", ["overlay", "shrink"])
@pytest.mark.parametrize("name", ["onevision", "next", "idefics3"])
def test_every_tile_has_the_prompt_and_the_rest_is_the_librarys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, compose: Compose
) -> None:
    case = both(tmp_path, name)
    method = attached(case.backbone, init_std=0.7, compose=compose)  # type: ignore[arg-type]
    prompt = method.pixel_prompt
    assert prompt is not None
    delta, mean, std = (each.detach().double() for each in (prompt.delta, prompt.mean, prompt.std))
    with torch.no_grad(), float64_islands(monkeypatch, case.library):
        found = case.backbone.logits(case.backbone(case.batch).hidden_states)
        for sample, given in enumerate(case.samples):
            tiles = given.get("pixel_values")
            prompted = {} if tiles is None else {"pixel_values": composed(tiles, delta, mean, std, compose)}
            expected = case.library(**{**given, **prompted}).logits[0]
            torch.testing.assert_close(found[sample, : len(expected)], expected, rtol=1e-11, atol=1e-11)


def test_patches_of_grids_of_their_own_are_refused_before_weights_load(tmp_path: Path) -> None:
    write_whole_model(tmp_path, qwen_config())
    backbone = VisionLanguageModel(str(tmp_path))
    with pytest.raises(BadInputError, match="takes no pixel prompt"):
        PixelPrompting(BORDER).check(backbone.shape)
    assert not backbone.is_loaded


@pytest.mark.slow
@pytest.mark.parametrize("compose", ["overlay", "shrink"])
@pytest.mark.parametrize("name", WHOLE)
def test_pixels_keep_the_methods_contract_on_whole_models(tmp_path: Path, name: str, compose: Compose) -> None:
    write_whole_model(tmp_path, WHOLE[name]())

    def built(dtype: torch.dtype) -> VisionLanguageModel:
        backbone = VisionLanguageModel(str(tmp_path), dtype=str(dtype).removeprefix("torch."))
        backbone.load()
        return backbone

    def make() -> Method:
        return PixelPrompting(BORDER, compose)

    method_contract(make, built, starts_as_frozen=compose == "overlay")


@pytest.mark.slow
@pytest.mark.parametrize("compose", ["overlay", "shrink"])
@pytest.mark.parametrize("tower", ["clip", "siglip", "timm"])
def test_pixels_keep_the_methods_contract_on_pairs(tmp_path: Path, tower: str, compose: Compose) -> None:
    store_pair(tmp_path, tower)

    def built(dtype: torch.dtype) -> Backbone:
        backbone = stored_pair(tmp_path, str(dtype).removeprefix("torch."))
        backbone.load()
        return backbone

    method_contract(lambda: PixelPrompting(BORDER, compose), built, starts_as_frozen=compose == "overlay")
