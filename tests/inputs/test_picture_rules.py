"""What a picture becomes follows from its size; rows, tokens and pixels are those of the library's own processors."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID
from lightning_m2pt.inputs.images import open_image, upright_size
from lightning_m2pt.inputs.picture_layout import PictureLayout
from lightning_m2pt.inputs.picture_rules.idefics3 import Idefics3Tiles
from lightning_m2pt.inputs.picture_rules.llava_next import LlavaNextTiles
from lightning_m2pt.inputs.picture_rules.llava_onevision import LlavaOnevisionTiles
from lightning_m2pt.inputs.picture_rules.one_tile import OneTile
from lightning_m2pt.inputs.picture_rules.qwen_vl import QwenVlGrid
from lightning_m2pt.inputs.picture_rules.rules import PictureRules
from lightning_m2pt.testing.small_processor import word_tokenizer

TILE, PATCH = 8, 2
RESOLUTIONS = [[8, 8], [8, 16], [16, 8], [16, 16], [8, 32], [32, 8], [24, 24], [24, 32]]
SIDES = st.integers(1, 60)
ODD_SIZES = [(1, 60), (60, 1), (33, 34), (8, 8), (9, 8), (17, 31), (1, 1)]
FRAMES = 2
EXAMPLES = 60


def picture(width: int, height: int) -> Image.Image:
    pixels = numpy.random.default_rng((width, height)).integers(0, 256, (height, width, 3), dtype=numpy.uint8)
    return Image.fromarray(pixels)


def tokenizer_with(*tokens: str) -> Any:
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    return tokenizer


def onevision(most_tiles: int = 2) -> LlavaOnevisionTiles:
    from transformers import LlavaOnevisionImageProcessor

    images = LlavaOnevisionImageProcessor(size={"height": TILE, "width": TILE}, image_grid_pinpoints=RESOLUTIONS)
    return LlavaOnevisionTiles(images, TILE, TILE // PATCH, RESOLUTIONS, most_tiles)


def idefics3(longest: int = 4 * TILE, tile: int = TILE, **settings_: Any) -> Idefics3Tiles:
    from transformers import Idefics3ImageProcessor

    numbered = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokens = tokenizer_with("<fake_token_around_image>", "<global-img>", "<image>", *numbered)
    tokens.add_tokens(["\n\n", "\n"])
    images = Idefics3ImageProcessor(size={"longest_edge": longest}, max_image_size={"longest_edge": tile}, **settings_)
    return Idefics3Tiles(images, tokens, tile, 4)


def qwen() -> QwenVlGrid:
    from transformers import Qwen2VLImageProcessor

    images = Qwen2VLImageProcessor(
        patch_size=PATCH, merge_size=2, temporal_patch_size=FRAMES, size={"shortest_edge": 64, "longest_edge": 1024}
    )
    return QwenVlGrid(images, PATCH, FRAMES, 2, (7, 8))


def one_tile(**settings_: Any) -> OneTile:
    from transformers import CLIPImageProcessor, LlavaImageProcessor

    kind = LlavaImageProcessor if settings_.get("do_pad") else CLIPImageProcessor
    crop = {"height": TILE, "width": TILE}
    return OneTile(kind(size={"shortest_edge": TILE}, crop_size=crop, **settings_), TILE, (TILE // PATCH) ** 2)


def runs(layout: PictureLayout) -> list[int]:
    """Token ids with every placeholder once for each of its rows."""
    rows = iter(layout.rows)
    return [int(token) for token in layout.token_ids for _ in range(next(rows) if token == IMAGE_TOKEN_ID else 1)]


@settings(max_examples=EXAMPLES, deadline=None)
@given(width=SIDES, height=SIDES, most_tiles=st.sampled_from([1, 2, 9]))
@example(1, 60, 1)
@example(60, 1, 2)
@example(33, 34, 1)
@example(26, 24, 9)  # a few rows too many are left as they are
def test_onevisions_rows_are_those_of_the_librarys_processor(width: int, height: int, most_tiles: int) -> None:
    from transformers import LlavaOnevisionProcessor, LlavaOnevisionVideoProcessor

    rules, tokenizer = onevision(most_tiles), tokenizer_with("<image>", "<video>")
    library = LlavaOnevisionProcessor(
        rules.image_processor,
        tokenizer,
        LlavaOnevisionVideoProcessor(),
        num_image_tokens=(TILE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=f"anyres_max_{most_tiles}",
    )
    (found,) = rules.prepared([picture(width, height)], "a picture")
    expected = library(text="<image>", images=picture(width, height), return_tensors="pt")
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    assert sum(found.layout.rows) == int((expected["input_ids"] == image_token).sum())
    assert torch.equal(found.pixels, expected["pixel_values"][0])
    assert found.size == (len(found.pixels), height, width)


def llava_next() -> LlavaNextTiles:
    from transformers import LlavaNextImageProcessor

    crop = {"height": TILE, "width": TILE}
    images = LlavaNextImageProcessor(size={"shortest_edge": TILE}, crop_size=crop, image_grid_pinpoints=RESOLUTIONS)
    return LlavaNextTiles(images, TILE, TILE // PATCH, RESOLUTIONS)


@settings(max_examples=EXAMPLES // 3, deadline=None)
@given(width=SIDES, height=SIDES)
@example(1, 60)
@example(60, 1)
@example(48, 36)  # twelve tiles: OneVision would make their grid smaller
def test_llava_nexts_rows_are_those_of_the_librarys_processor(width: int, height: int) -> None:
    from transformers import LlavaNextProcessor

    rules, tokenizer = llava_next(), tokenizer_with("<image>")
    library = LlavaNextProcessor(rules.image_processor, tokenizer, PATCH, "default", num_additional_image_tokens=1)
    (found,) = rules.prepared([picture(width, height)], "a picture")
    expected = library(text="<image>", images=picture(width, height), return_tensors="pt")
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    assert sum(found.layout.rows) == int((expected["input_ids"] == image_token).sum())
    assert torch.equal(found.pixels, expected["pixel_values"][0])
    assert found.size == (len(found.pixels), height, width)


def test_onevisions_samples_of_several_pictures_have_one_tile_of_each() -> None:
    rules, sizes = onevision(), [(30, 11), (8, 8), (1, 60)]
    found = rules.prepared([picture(*size) for size in sizes], "a sample")
    together = rules.image_processor(images=[[picture(*size) for size in sizes]], return_tensors="pt")["pixel_values"]
    assert [each.pixels.shape for each in found] == [(1, 3, TILE, TILE)] * 3
    assert torch.equal(torch.cat([each.pixels for each in found]), together[:, 0])
    assert [each.layout.rows for each in found] == [((TILE // PATCH) ** 2 + 1,)] * 3
    assert [each.size for each in found] == [(1, height, width) for width, height in sizes]


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    width=SIDES,
    height=SIDES,
    longest=st.sampled_from([TILE, 2 * TILE, 4 * TILE, 19, 30]),
    splits=st.booleans(),
    resizes=st.booleans(),
)
@example(1, 60, 4 * TILE, True, True)
@example(60, 1, 4 * TILE, True, True)
@example(33, 34, 30, True, True)
@example(2, 5, 19, True, True)  # a side that is made even takes a tile more
@example(5, 2, 19, True, True)
@example(1, 4, 30, True, True)  # what is left of a number of pixels behind its point takes none
@example(4, 1, 30, True, True)
@example(9, 8, TILE, True, False)
def test_idefics3s_tokens_and_tiles_are_those_of_the_librarys_processor(
    width: int, height: int, longest: int, splits: bool, resizes: bool
) -> None:
    from transformers import Idefics3Processor

    rules = idefics3(longest, do_image_splitting=splits, do_resize=resizes)
    rows, columns = rules.grid(width, height)
    if max(rows, columns) > 6:  # the tokenizer has tokens for six
        return
    (found,) = rules.prepared([picture(width, height)], "a picture")
    library = Idefics3Processor(rules.image_processor, rules.tokenizer, image_seq_len=4)
    expected = library(text="<image>", images=[picture(width, height)], add_special_tokens=False, return_tensors="pt")
    image_token = rules.tokenizer.convert_tokens_to_ids("<image>")
    ids = [image_token if token == IMAGE_TOKEN_ID else token for token in runs(found.layout)]
    assert ids == expected["input_ids"][0].tolist()
    assert torch.equal(found.pixels, expected["pixel_values"][0])
    assert bool(expected["pixel_attention_mask"].all())


@settings(max_examples=EXAMPLES, deadline=None)
@given(width=SIDES, height=SIDES)
@example(1, 60)
@example(60, 1)
def test_qwens_grid_is_the_librarys(width: int, height: int) -> None:
    rules = qwen()
    (found,) = rules.prepared([picture(width, height)], "a picture")
    expected = rules.image_processor(images=[picture(width, height)], return_tensors="pt")
    assert found.size == tuple(expected["image_grid_thw"][0].tolist())
    assert torch.equal(found.pixels, expected["pixel_values"])
    assert found.layout.token_ids.tolist() == [7, IMAGE_TOKEN_ID, 8]
    assert found.layout.rows == (int(expected["image_grid_thw"].prod()) // 4,)


@pytest.mark.parametrize("size", ODD_SIZES, ids=str)
@pytest.mark.parametrize("settings_", [{}, {"do_pad": True}], ids=["cropped", "padded to a square"])
def test_one_tile_is_the_librarys(size: tuple[int, int], settings_: dict[str, Any]) -> None:
    rules = one_tile(**settings_)
    (found,) = rules.prepared([picture(*size)], "a picture")
    assert torch.equal(found.pixels, rules.image_processor(images=picture(*size), return_tensors="pt")["pixel_values"])
    assert (found.size, found.layout.rows, found.layout.token_ids.tolist()) == (None, (16,), [IMAGE_TOKEN_ID])


@pytest.mark.parametrize("made", [onevision, idefics3, qwen, one_tile])
def test_rules_go_to_a_worker_and_make_the_same_there(made: Callable[[], PictureRules]) -> None:
    rules = made()
    sent = pickle.loads(pickle.dumps(rules))
    (here,), (there,) = (each.prepared([picture(31, 12)], "a picture") for each in (rules, sent))
    assert torch.equal(here.pixels, there.pixels)
    assert (here.size, here.layout.rows) == (there.size, there.layout.rows)
    assert [layout.rows for layout in rules.layouts([(31, 12)], "a picture")] == [here.layout.rows]


@pytest.mark.parametrize(
    ("rules", "sizes", "said"),
    [
        (one_tile, [(1, 4_000_000)], "of 1 x 4000000 would have .* pixels with a short side of 8"),
        (lambda: one_tile(do_pad=True), [(1, 20_000)], "would have 400,000,000 pixels padded to a square"),
        (onevision, [(1, 20_000), (2, 2)], "padded to a square"),
        (qwen, [(1, 201)], "1 x 201 is too long"),
    ],
)
def test_a_picture_that_would_become_huge_is_refused_with_its_record(
    rules: Callable[[], PictureRules], sizes: list[tuple[int, int]], said: str
) -> None:
    with pytest.raises(BadInputError, match=said) as refusal:
        rules().layouts(sizes, "set.json: record 7")
    assert refusal.value.where == "set.json: record 7"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: OneTile(one_tile().image_processor, 2 * TILE, 4), "the tower reads 16 x 16"),
        (lambda: OneTile(qwen().image_processor, TILE, 4), "become .*longest_edge"),
        (lambda: LlavaOnevisionTiles(onevision().image_processor, 16, 4, RESOLUTIONS, 2), "the tower reads 16 x 16"),
        (lambda: LlavaOnevisionTiles(onevision().image_processor, TILE, 4, [[8, 8]], 2), "image_grid_pinpoints"),
        (lambda: Idefics3Tiles(idefics3().image_processor, idefics3().tokenizer, 16, 4), "the tower reads 16 x 16"),
        (lambda: Idefics3Tiles(idefics3().image_processor, word_tokenizer(), TILE, 4), "has no token <fake"),
        (lambda: QwenVlGrid(qwen().image_processor, 4, FRAMES, 2, (7, 8)), "the image processor makes"),
    ],
)
def test_an_image_processor_of_another_model_is_refused(make: Callable[[], PictureRules], said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        make()


def test_what_the_library_makes_otherwise_than_arithmetic_says_is_refused() -> None:
    rules = one_tile(do_resize=False, do_center_crop=True)
    rules.image_size = TILE + 1
    with pytest.raises(BadInputError, match=r"makes \[1, 3, 8, 8\]"):
        rules.prepared([picture(9, 9)], "a picture")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_the_upright_size_is_that_of_the_opened_picture(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"picture.{suffix}"
    picture(7, 5).save(path, exif=exif)
    assert upright_size(path) == open_image(path).size == ((7, 5) if orientation < 5 else (5, 7))
