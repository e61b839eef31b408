"""Pixel prompts by value: both ways to compose a picture, both spaces, clipping, and the numbers that may move."""

from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.prompts.pixel_prompt import (
    PUBLISHED_BORDER,
    Clip,
    Compose,
    PixelPrompt,
    Space,
    border_width,
    refuse_other_normalisation,
    resized_delta,
)
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch
from lightning_m2pt.testing.small_processor import CLIP_MEAN, CLIP_STD
from lightning_m2pt.tuning.losses import supervised_rows

SIDE, WIDTH = 16, 2
MEAN, STD = (torch.tensor(each).view(3, 1, 1) for each in (CLIP_MEAN, CLIP_STD))
INNER = (slice(None), slice(WIDTH, SIDE - WIDTH), slice(WIDTH, SIDE - WIDTH))


def prompt_of(compose: Compose = "overlay", space: Space = "pixels", scale: float = 1.0) -> PixelPrompt:
    """Returns a prompt of random numbers, stored in the interior as well."""
    made = PixelPrompt(SIDE, PUBLISHED_BORDER, (MEAN, STD), compose, space)
    with torch.no_grad():
        made.delta.copy_(scale * torch.randn(made.delta.shape, generator=torch.Generator().manual_seed(3)))
    return made


def picture() -> Tensor:
    """Returns (2, 3, S, S) of 255 levels in 0..1."""
    levels = torch.randint(256, (2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(4))
    return levels.float() / 255


def normalised(pixels: Tensor) -> Tensor:
    return (pixels - MEAN) / STD


@pytest.mark.parametrize(("side", "width"), [(224, 30), (48, 6), (72, 10), (336, 45), (384, 51)])
def test_published_border_has_these_widths(side: int, width: int) -> None:
    assert border_width(side, PUBLISHED_BORDER) == width


def test_the_published_square_has_these_numbers() -> None:
    prompt = PixelPrompt(224, PUBLISHED_BORDER, (MEAN, STD))
    assert (prompt.delta.numel(), prompt.moving, int(3 * prompt.border_mask().sum())) == (150_528, 69_840, 69_840)


@pytest.mark.parametrize("space", ["pixels", "normalised"])
def test_overlay_adds_the_border_and_leaves_the_interior(space: Space) -> None:
    prompt, pixels = prompt_of(space=space), picture()
    found = prompt(normalised(pixels))
    added = prompt.delta.detach() * prompt.border_mask()
    expected = normalised(pixels + added) if space == "pixels" else normalised(pixels) + added
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(found[0][INNER], normalised(pixels)[0][INNER])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("clip", ["none", "unit"])
def test_overlay_of_zeros_gives_the_very_pixels(clip: str, dtype: torch.dtype) -> None:
    prompt, given = PixelPrompt(SIDE, 0.1, (MEAN, STD), clip=clip), normalised(picture()).to(dtype)  # type: ignore[arg-type]
    inside = given.clamp(((0 - MEAN) / STD).to(dtype) + 1e-6, ((1 - MEAN) / STD).to(dtype) - 1e-6)
    assert torch.equal(prompt(inside), inside)


def test_pixels_are_never_narrower_than_float32() -> None:
    assert prompt_of()(normalised(picture()).bfloat16()).dtype == torch.float32


def test_shrinking_is_pillows_resizing_with_the_border_around_it() -> None:
    prompt, pixels = PixelPrompt(SIDE, PUBLISHED_BORDER, (MEAN, STD), "shrink", fill=(0.25, 0.5, 0.75)), picture()
    with torch.no_grad():
        prompt.delta[:, 0, 0] = 0.125
    found = prompt(normalised(pixels)) * STD + MEAN
    inner = SIDE - 2 * WIDTH
    for number, each in enumerate(pixels):
        small = [Image.fromarray(channel.numpy()).resize((inner, inner), Image.Resampling.BICUBIC) for channel in each]
        expected = torch.tensor([0.25, 0.5, 0.75]).view(3, 1, 1).repeat(1, SIDE, SIDE)
        expected[INNER] = torch.from_numpy(numpy.stack(small)).clamp(0, 1)
        expected[:, 0, 0] += 0.125
        torch.testing.assert_close(found[number], expected, rtol=0, atol=1e-5)


def test_clipping_and_eight_bits_change_what_no_picture_has() -> None:
    pixels = picture()
    for compose in ("overlay", "shrink"):
        prompt = prompt_of(compose)  # type: ignore[arg-type]
        free = prompt(normalised(pixels)) * STD + MEAN
        assert free.min() < -0.5
        assert free.max() > 1.5
        prompt.clip = "unit"
        unit = prompt(normalised(pixels)) * STD + MEAN
        torch.testing.assert_close(unit, free.clamp(0, 1), rtol=0, atol=1e-6)
        prompt.clip = "eight_bits"
        eight = prompt(normalised(pixels)) * STD + MEAN
        torch.testing.assert_close(eight, (free.clamp(0, 1) * 255).round() / 255, rtol=0, atol=1e-6)


@pytest.mark.parametrize("clip", ["unit", "eight_bits"])
def test_clipping_an_overlay_leaves_the_picture_inside_as_it_is_given(clip: Clip) -> None:
    given = normalised(picture() * 0.9 + 0.037)  # between the levels of a PNG
    prompt = prompt_of()
    prompt.clip = clip
    inside = (slice(None), *INNER)
    assert torch.equal(prompt(given)[inside], given[inside])


def test_a_drawn_start_is_in_the_border_alone_and_the_generators() -> None:
    prompt = PixelPrompt(SIDE, PUBLISHED_BORDER, (MEAN, STD))
    prompt.initialise(0.5, torch.Generator().manual_seed(7))
    drawn = 0.5 * torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))
    assert torch.equal(prompt.delta.detach(), drawn * prompt.border_mask())


def test_rounding_lets_the_gradient_pass_and_clipping_does_not() -> None:
    pixels = torch.full((1, 3, SIDE, SIDE), 0.5)
    prompt = PixelPrompt(SIDE, PUBLISHED_BORDER, (MEAN, STD), clip="eight_bits")
    with torch.no_grad():
        prompt.delta[0, 0] = 0.7
    prompt(normalised(pixels)).sum().backward()
    expected = (1 / STD).expand(3, SIDE, SIDE).clone()
    expected[0, 0] = 0
    torch.testing.assert_close(prompt.delta.grad, expected)


@pytest.mark.parametrize("compose", ["overlay", "shrink"])
def test_gradient_is_the_whole_square_and_the_sum_over_pictures(compose: Compose) -> None:
    prompt = prompt_of(compose)
    weights = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    (prompt(normalised(picture())) * weights).sum().backward()
    torch.testing.assert_close(prompt.delta.grad, (weights / STD).sum(dim=0))


def test_the_interior_is_never_read() -> None:
    prompt, given = prompt_of(), normalised(picture())
    before = prompt(given)
    with torch.no_grad():
        prompt.delta[INNER] += 5.0
    assert torch.equal(prompt(given), before)


def test_an_optimizer_is_told_what_moves() -> None:
    moves = prompt_of().delta.moves  # type: ignore[attr-defined]
    assert (moves.dtype, tuple(moves.shape), moves.device.type) == (torch.bool, (1, SIDE, SIDE), "cpu")
    assert not moves[INNER].any()
    assert int(moves.sum()) == SIDE**2 - (SIDE - 2 * WIDTH) ** 2


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"a prompt of 16 x 16 pixels, and a picture of \(3, 24, 24\)"):
        prompt_of()(torch.zeros(1, 3, 24, 24))


@pytest.mark.parametrize(
    ("border", "match"), [(0.02, "16 x 16 pixels is less than a pixel"), (0.48, "16 x 16 pixels is all of it")]
)
def test_a_border_that_does_not_fit_is_refused(border: float, match: str) -> None:
    with pytest.raises(BadInputError, match=match):
        border_width(SIDE, border)


def test_resizing_a_prompt_keeps_a_constant_and_its_own_size() -> None:
    delta = prompt_of().delta.detach()
    assert torch.equal(resized_delta(delta, SIDE), delta)
    for interpolation in ("nearest", "bilinear"):
        constant = resized_delta(torch.full((3, SIDE, SIDE), 0.25), 24, interpolation)  # type: ignore[arg-type]
        torch.testing.assert_close(constant, torch.full((3, 24, 24), 0.25))
    assert torch.equal(resized_delta(delta, 2 * SIDE, "nearest"), delta.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_units_of_deviations_belong_to_their_base() -> None:
    own, other = (MEAN, STD), (torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.5))
    refuse_other_normalisation("pixels", own, other)
    refuse_other_normalisation("normalised", own, (MEAN.flatten(), STD.clone()))
    for one in (other, (MEAN, other[1]), (other[0], STD)):
        with pytest.raises(BadInputError, match="this base normalises pictures otherwise"):
            refuse_other_normalisation("normalised", own, one)


def test_the_model_sees_the_composed_picture_and_nothing_else(tmp_path: Path) -> None:
    backbone, batch = random_backbone(tmp_path, torch.float64), random_batch(dtype=torch.float64)
    method = PixelPrompting(compose="shrink", init_std=0.5)
    method.build(backbone, torch.Generator().manual_seed(1))
    assert method.pixel_prompt is not None
    composed = method.pixel_prompt(batch.pixel_values).detach()
    expected = backbone.connected_rows(composed).rows
    method.attach(backbone)
    assert torch.equal(backbone.connected_rows(batch.pixel_values).rows, expected)


def test_the_gradient_is_the_slope_of_the_loss(tmp_path: Path) -> None:
    backbone, batch = random_backbone(tmp_path, torch.float64), random_batch(dtype=torch.float64)
    method = PixelPrompting()
    method.build(backbone, torch.Generator().manual_seed(1))
    method.double().attach(backbone)
    assert method.pixel_prompt is not None
    delta = method.pixel_prompt.delta
    supervised_rows(backbone, batch).losses.sum().backward()
    step = 1e-2  # the decoder's norms compute in float32, of which a smaller difference is noise
    for place in ((0, 0, 0), (1, 1, 9), (2, 15, 15)):
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                delta[place] += sign * step
                losses.append(float(supervised_rows(backbone, batch).losses.sum()))
                delta[place] -= sign * step
        assert delta.grad is not None
        assert float(delta.grad[place]) == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=5e-3)


@pytest.mark.parametrize("compose", ["overlay", "shrink"])
def test_units_of_deviations_are_clipped_as_the_pixels_they_make(compose: Compose) -> None:
    """The same picture as that of a prompt in pixels with the same border, multiplied by the channels' deviations."""
    behind, in_pixels = prompt_of(compose, "normalised"), prompt_of(compose, "pixels")
    with torch.no_grad():
        in_pixels.delta.mul_(STD)
    behind.clip = in_pixels.clip = "unit"
    given = normalised(picture())
    torch.testing.assert_close(behind(given), in_pixels(given), rtol=0, atol=1e-6)
    assert float((behind(given) * STD + MEAN).max()) <= 1 + 1e-6
