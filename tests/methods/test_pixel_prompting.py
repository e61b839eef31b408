"""Pixel prompts on a model: zeros change nothing, what is inside the border stays, and what cannot be is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.configuration.cli import parse_experiment
from experiments.runs.prepare import connect_experiment
from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.feature_cache import FeatureCache
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.parameter_part import ParameterPart
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.methods.trained_parameters import freeze_all_but_declared
from lightning_m2pt.prompts.pixel_prompt import PUBLISHED_BORDER
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.optimizer import AdamW
from lightning_m2pt.tuning.parameter_counts import outside, parameter_counts
from tests.support.small_experiment import small_words


def test_an_overlay_of_zeros_gives_the_untouched_losses_and_answers(tmp_path: Path) -> None:
    backbone, batch = random_backbone(tmp_path), random_batch()

    def found() -> tuple[torch.Tensor, list[list[int]]]:
        losses = supervised_rows(backbone, batch).losses.detach()
        return losses, [list(each.token_ids) for each in greedy_answers(backbone, batch, 4, 0)]

    before = found()
    method = PixelPrompting()
    method.build(backbone, torch.Generator())
    method.attach(backbone)
    after = found()
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]


def test_adamw_moves_the_border_and_leaves_the_inside(tmp_path: Path) -> None:
    backbone, batch, method = random_backbone(tmp_path), random_batch(), PixelPrompting(compose="shrink")
    method.build(backbone, torch.Generator())
    freeze_all_but_declared(TuningModule(backbone, method), method)
    method.attach(backbone)
    assert method.pixel_prompt is not None
    optimizer = AdamW(learning_rate=0.01, weight_decay=0.1).build(method.parts())
    for _ in range(3):
        optimizer.zero_grad()
        supervised_rows(backbone, batch).losses.sum().backward()
        optimizer.step()
    delta, border = method.pixel_prompt.delta.detach(), method.pixel_prompt.border_mask().expand(3, -1, -1)
    assert not delta[~border].any()
    assert bool(delta[border].ne(0).all())


def test_the_square_is_counted_whole_and_its_inside_never_moves(tmp_path: Path) -> None:
    backbone, method = random_backbone(tmp_path), PixelPrompting()
    method.build(backbone, torch.Generator())
    (part,) = method.parameter_parts()
    assert (part.parameters, part.added, part.dead) == (3 * 16 * 16, 3 * 16 * 16, 3 * 12 * 12)
    said = outside(parameter_counts([part], 10_000))
    assert said == "pixel_prompt is added outside the model: 336 of its numbers move, 3.3600% of the base"
    together = Combined([PixelPrompting(), Lora(rank=1, interaction=False)])
    together.build(backbone, torch.Generator())
    counted = parameter_counts(together.parameter_parts(), 10_000)
    assert [each.get("outside_the_model", False) for each in counted["parts"]] == [True, False]
    assert outside(counted) == said
    assert outside(parameter_counts([ParameterPart("head", 10, 0)], 100)) is None


def test_the_start_is_drawn_by_the_runs_generator_and_everything_that_composes_is_said(tmp_path: Path) -> None:
    method = PixelPrompting(compose="shrink", space="normalised", fill=(0.5, 0.25, 0.0), clip="unit", init_std=0.5)
    method.build(random_backbone(tmp_path), torch.Generator().manual_seed(7))
    assert method.pixel_prompt is not None
    drawn = 0.5 * torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(7))
    assert torch.equal(method.pixel_prompt.delta.detach(), drawn * method.pixel_prompt.border_mask())
    assert {key: value for key, value in method.toggles().items() if key != "method"} == {
        **method.switches(),
        "compose": "shrink",
        "space": "normalised",
        "clip": "unit",
    }
    assert method.adapter_config() == {
        "border": PUBLISHED_BORDER,
        "compose": "shrink",
        "space": "normalised",
        "fill": [0.5, 0.25, 0.0],
        "clip": "unit",
    }


def test_a_feature_cache_serves_nothing_while_a_prompt_is_trained(tmp_path: Path) -> None:
    backbone, batch, method = random_backbone(tmp_path), random_batch(), PixelPrompting()
    backbone.feature_cache = FeatureCache(tmp_path / "features", 10**7, "a tower")
    method.build(backbone, torch.Generator())
    freeze_all_but_declared(TuningModule(backbone, method), method)
    method.attach(backbone)
    supervised_rows(backbone, batch).losses.sum().backward()
    assert not list((tmp_path / "features").rglob("*.safetensors"))
    assert method.pixel_prompt is not None
    assert method.pixel_prompt.delta.grad is not None


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"border": 0.0}, "0 of a picture's side is no border"),
        ({"border": 0.5}, "0.5 of a picture's side is no border"),
        ({"compose": "shrink", "fill": (0.0, 0.0, 1.5)}, "is no colour"),
        ({"fill": (0.0, 0.0, 0.5)}, "the picture is not shrunk"),
        ({"init_std": -1.0}, "-1 is no deviation"),
    ],
)
def test_numbers_that_no_picture_has_are_refused(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(BadInputError, match=match):
        PixelPrompting(**arguments)


def test_backbones_without_square_pictures_and_borders_without_a_pixel_are_refused(tmp_path: Path) -> None:
    shape = random_backbone(tmp_path).shape
    with pytest.raises(BadInputError, match="grids of their own"):
        PixelPrompting().check(replace(shape, tiles_are_patches=True))
    with pytest.raises(BadInputError, match="less than a pixel"):
        PixelPrompting(border=0.01).check(shape)


def test_a_base_that_makes_pictures_of_another_size_is_refused_before_weights_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = parse_experiment([*small_words(tmp_path, "experiments/evp_base.yaml")])
    own = OpenClipLlama.processor

    def other(backbone: OpenClipLlama) -> Processor:
        processor = own(backbone)
        processor.image_size = 24
        return processor

    connect_experiment(experiment)
    monkeypatch.setattr(OpenClipLlama, "processor", other)
    with pytest.raises(BadInputError, match=r"makes pictures of \(3, 24, 24\)"):
        connect_experiment(experiment)
    assert not experiment.model.backbone.is_loaded
