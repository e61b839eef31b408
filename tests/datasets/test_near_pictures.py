"""Pictures that are one up to encoding, size and brightness are found; different ones, and crops of one, are not."""

from collections.abc import Callable
from io import BytesIO
from itertools import combinations

import numpy
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from experiments.datasets import near_pictures
from experiments.datasets.near_pictures import alike, are_near, brightness, have_same_shape, sketch, steps

SIDE = 96


def natural_pictures() -> list[Image.Image]:
    """Fields of two photographs that do not overlap, and invented pictures with the spectrum of photographs."""
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    corners = [(left, top) for left in range(0, 640 - SIDE, SIDE) for top in range(0, 427 - SIDE, SIDE)]
    fields = [photo.crop((x, y, x + SIDE, y + SIDE)) for photo in photographs for x, y in corners]
    return [field for field in fields if has_contrast(field)] + [invented(seed) for seed in range(12)]


def has_contrast(image: Image.Image) -> bool:
    """Not a sky, nor what is out of focus: of those, one part is like another."""
    grey = numpy.asarray(image.convert("L")).astype(numpy.float32)
    return bool(sketch(image).any()) and grey.mean() < 225 and steps(grey) > 6


def invented(seed: int) -> Image.Image:
    """A picture whose amplitudes fall with frequency, as those of photographs do."""
    random = numpy.random.default_rng(seed)
    down, across = numpy.meshgrid(numpy.fft.fftfreq(SIDE), numpy.fft.fftfreq(SIDE), indexing="ij")
    falling = 1 / numpy.maximum(numpy.hypot(down, across), 1 / SIDE)
    channels = [numpy.fft.ifft2(numpy.fft.fft2(random.normal(size=(SIDE, SIDE))) * falling).real for _ in range(3)]
    grey = channels[0]
    stacked = numpy.stack([grey + 0.3 * channel for channel in channels], axis=2)
    scaled = 127 + 50 * (stacked - stacked.mean()) / stacked.std()
    return Image.fromarray(scaled.clip(0, 255).astype(numpy.uint8))


def small_noise(seed: int) -> Image.Image:
    """48 x 48 pixels of little contrast, as many sets of small pictures have."""
    pixels = numpy.random.default_rng(seed).normal(120, 14, size=(12, 12, 3)).clip(0, 255).astype(numpy.uint8)
    return Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC)


def encoded_again(image: Image.Image, quality: int = 60) -> Image.Image:
    file = BytesIO()
    image.save(file, format="JPEG", quality=quality)
    return Image.open(BytesIO(file.getvalue())).convert("RGB")


def halved(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)


def brighter(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.1)


def found(one: Image.Image, other: Image.Image) -> bool:
    """Both steps: the sketches look alike, and so do the pixels."""
    pairs = list(alike(sketch(one)[None], sketch(other)[None]))
    return pairs == [(0, 0)] and are_near(one, other)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return natural_pictures() + [small_noise(seed) for seed in range(8)]


@pytest.mark.parametrize(
    "change",
    [encoded_again, halved, brighter, lambda image: image.reduce(2), lambda image: image.copy()],
    ids=["quality 60", "halved", "10% brighter", "halved by boxes", "the same"],
)
def test_what_was_stored_otherwise_is_found(
    pictures: list[Image.Image], change: Callable[[Image.Image], Image.Image]
) -> None:
    changed = [change(image) for image in pictures]
    assert [
        number for number, (one, other) in enumerate(zip(pictures, changed, strict=True)) if not found(one, other)
    ] == []
    assert all(found(other, one) for one, other in zip(pictures[:5], changed[:5], strict=True))


def test_a_thousand_different_pairs_are_not(pictures: list[Image.Image]) -> None:
    pairs = list(combinations(range(len(pictures)), 2))
    assert len(pairs) > 1000
    assert [pair for pair in pairs if are_near(pictures[pair[0]], pictures[pair[1]])] == []


def test_crops_turned_and_mirrored_pictures_are_others(pictures: list[Image.Image]) -> None:
    for image in pictures[:40]:
        assert not are_near(image, image.crop((8, 8, SIDE, SIDE)))
        assert not found(image, ImageOps.mirror(image))
        assert not found(image, image.rotate(90))


def stretched(image: Image.Image, deviation: float) -> Image.Image:
    """A picture with another contrast."""
    pixels = numpy.asarray(image).astype(numpy.float32)
    return Image.fromarray((127 + (pixels - pixels.mean()) / pixels.std() * deviation).clip(0, 255).astype(numpy.uint8))


def test_what_is_left_is_measured_by_contrast_detail_and_agreement() -> None:
    smooth = stretched(invented(3).filter(ImageFilter.GaussianBlur(10)), 35)
    assert are_near(smooth, smooth.crop((1, 1, SIDE, SIDE)))
    assert not are_near(smooth, smooth.crop((5, 5, SIDE, SIDE)))  # few levels apart, but many for so smooth a picture
    one, other = (stretched(small_noise(seed), 1.5) for seed in (1, 2))
    assert are_near(one, one.copy())
    assert not are_near(one, other)  # few levels apart, because there is little of either
    random = numpy.random.default_rng(0)
    sharp = random.normal(127, 50, size=(48, 48, 1)).repeat(3, axis=2)
    again = sharp + random.normal(0, 12, size=(48, 48, 1))
    sharp, again = (Image.fromarray(each.clip(0, 255).astype(numpy.uint8)) for each in (sharp, again))
    assert not are_near(sharp, again)  # a fifth of the steps apart, but as far as no encoder leaves it


def test_a_picture_of_other_proportions_is_another() -> None:
    assert not are_near(invented(3), invented(3).resize((SIDE, SIDE - 16)))


def test_the_colour_alone_tells_two_pictures_apart() -> None:
    grey = numpy.asarray(invented(3).convert("L")).astype(numpy.float32)
    red, blue = (
        numpy.stack([grey * (1 + sign * 0.5), grey * 0.9, grey * (1 - sign * 0.5)], axis=2) for sign in (1, -1)
    )
    one, other = (Image.fromarray(numpy.clip(each, 0, 255).astype(numpy.uint8)) for each in (red, blue))
    assert not are_near(one, other)


def test_white_that_brightening_cut_off_says_nothing() -> None:
    pixels = numpy.asarray(invented(5)).astype(numpy.float32) + 70
    one = Image.fromarray(pixels.clip(0, 255).astype(numpy.uint8))
    other = brighter(one)
    assert (numpy.asarray(other) == 255).mean() > 0.1
    assert found(one, other)
    assert found(other, one)


def test_nothing_is_left_to_compare_of_one_colour_or_an_even_sky() -> None:
    slope = numpy.linspace(40, 90, SIDE, dtype=numpy.float32)
    sky = numpy.repeat(numpy.repeat(slope[:, None, None], SIDE, axis=1), 3, axis=2).astype(numpy.uint8)
    for image in (Image.new("RGB", (SIDE, SIDE), "#336699"), Image.fromarray(sky)):
        assert not sketch(image).any()
        assert list(alike(sketch(image)[None], sketch(image)[None])) == []


def test_proportions_are_those_of_the_larger_one_but_for_rounding() -> None:
    assert have_same_shape(Image.new("RGB", (16, 11)), Image.new("RGB", (33, 23)))
    assert not have_same_shape(Image.new("RGB", (64, 48)), Image.new("RGB", (64, 64)))


def test_the_factor_is_that_of_what_is_not_white_and_has_a_limit() -> None:
    one, other = numpy.array([[100.0, 160.0, 240.0]]), numpy.array([[125.0, 200.0, 255.0]])
    assert brightness(one, other) == 1.25
    assert brightness(numpy.full((2, 2), 255.0), numpy.full((2, 2), 255.0)) == 0.0
    dark = invented(4).point(lambda value: value // 3)
    assert not are_near(dark, dark.point(lambda value: 2 * value))


@pytest.mark.parametrize("at_once", [near_pictures.PAIRS_AT_ONCE, 12])
def test_each_picture_is_paired_with_the_likest_and_with_earlier_ones_of_its_own_set(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(near_pictures, "PAIRS_AT_ONCE", at_once)
    noise = numpy.random.default_rng(0).normal(size=(6, 64)).astype(numpy.float32)
    noise[1:5] = noise[0] + noise[1:5] * numpy.array([[0.2], [0.05], [0.1], [0.3]], numpy.float32)
    values = noise / numpy.linalg.norm(noise, axis=1, keepdims=True)
    assert list(alike(values[:1], values[1:].copy(), most=2)) == [(0, 1), (0, 2)]
    pairs = list(alike(values, values))
    assert {(row, column) for row, column in pairs if row == 4} == {(4, 0), (4, 1), (4, 2), (4, 3)}
    assert all(column < row for row, column in pairs)
    assert not [pair for pair in pairs if 5 in pair]
