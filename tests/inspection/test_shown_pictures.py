"""What is written of questions about tiles, grids, several pictures and none: pictures, arrays, names and the page."""

import io
import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load

from callbacks.attention_maps import log_sample
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inputs.named_templates import template_named
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.inspection.arrays import attention_arrays, attention_names
from lightning_m2pt.inspection.page import page_data
from lightning_m2pt.inspection.pictures import (
    activation_figure,
    overlay_figure,
    patch_attention,
    title_of,
    tower_attention,
)
from lightning_m2pt.inspection.samples import InspectedQuestion, ShownSample, question_batch, shown_sample
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.tuning.module import TuningModule
from tests.support.whole_models import idefics3_config, next_config, qwen_config, write_whole_model

SIZES = [(60, 40), (30, 92)]
CONFIGS = {"next": next_config, "idefics3": idefics3_config, "qwen2.5": qwen_config}


def gradients(height: int, width: int) -> numpy.ndarray:
    """Returns a picture that grows brighter to the right and redder to the bottom."""
    down, across = numpy.linspace(0, 255, height), numpy.linspace(0, 255, width)
    red, green = numpy.meshgrid(down, across, indexing="ij")
    return numpy.stack([red, green, numpy.full_like(red, 90)], axis=-1).astype(numpy.uint8)


def shown(folder: Path, name: str, pictures: int, method: Method | None = None) -> ShownSample:
    write_whole_model(folder, CONFIGS[name]())
    backbone = VisionLanguageModel(str(folder), dtype="float32")
    backbone.load()
    method = method or M2PT(0 if name == "qwen2.5" else 2, 2, visual_rows_to_text="none")
    method.build(backbone, torch.Generator().manual_seed(0))
    method.attach(backbone)
    model, processor = TuningModule(backbone, method).eval(), backbone.processor()
    made = [gradients(*size) for size in SIZES[:pictures]]
    first = made[0] if made else None
    sample = Sample("s", first, "", (Turn("is it red ?"),), ("t",), "", further_images=tuple(made[1:]))
    batch = question_batch(sample, template_named("plain"), processor)
    question = InspectedQuestion("own", "s", "is it red ?", "", "plain", batch, 3, (2,))
    return shown_sample(model, processor, question, None)


@pytest.mark.parametrize("name", CONFIGS)
def test_two_pictures_of_their_own_forms(tmp_path: Path, name: str) -> None:
    sample = shown(tmp_path, name, 2)
    for side in sample.sides:
        attention = side.attention
        assert len(side.tokens) == max(len(layer.spans) for layer in attention.language)
        spans = max((layer.spans for layer in attention.language), key=len).tolist()
        first = spans.index(Span.ANSWER) - 1  # a row chooses the token behind it, the question's last row the first
        assert list(side.predicts) == list(range(first, len(spans)))
        assert [side.predicts[row] for row in range(first, len(spans) - 1)] == list(side.tokens[first + 1 :])
        assert len(attention.pictures) == len(sample.pictures) == 2
        for number, (picture, pixels) in enumerate(zip(attention.pictures, sample.pictures, strict=True)):
            assert pixels.shape == (picture.height, picture.width, 3)
            as_given = Image.fromarray(gradients(*SIZES[number])).resize((picture.width, picture.height))
            assert numpy.abs(pixels.astype(int) - numpy.asarray(as_given).astype(int)).mean() < 8
            row = next(iter(side.predicts))
            of_tower, of_decoder = tower_attention(side, number), patch_attention(side, row, number)
            assert 0 < of_decoder.share < 1
            assert of_tower.share <= 1 + 1e-5
            assert float(of_decoder.heat.sum()) <= of_decoder.share + 1e-5
    title, tiles_of_first = title_of(sample.sides[0], "vision"), len(sample.sides[0].attention.pictures[0].tiles)
    assert "first of 2 pictures" in title
    assert (f"mean of {tiles_of_first} tiles" in title) == (tiles_of_first > 1)
    tensors, named = load(attention_arrays(sample)), json.loads(attention_names(sample))
    tiles = sum(len(picture.tiles) for picture in sample.sides[0].attention.pictures)
    assert {key.split(".")[1] for key in tensors} == {"language", *(f"vision_{number}" for number in range(tiles))}
    assert [len(picture["tiles"]) for picture in named["pictures"]] == [
        len(picture.tiles) for picture in sample.sides[0].attention.pictures
    ]
    for side in named["sides"].values():
        for part in [key for key in side if key not in {"answer", "predicts"}]:
            assert all(len(layer["spans"]) == len(layer["tokens"]) for layer in side[part].values())
    (written,) = page_data([sample], with_heads=False)["samples"]
    for side in written["sides"]:
        assert side["spans"].count(Span.PATCH) == sum(len(each["language"]["places"]) for each in written["pictures"])
        assert len(side["vision"]) == sum(each["tiles"] for each in written["pictures"])


def test_a_text_without_a_picture_has_maps_of_the_language_model_alone(tmp_path: Path) -> None:
    sample = shown(tmp_path, "qwen2.5", 0)
    assert sample.pictures == ()
    assert all(side.attention.vision == () and side.attention.language for side in sample.sides)
    assert {key.split(".")[1] for key in load(attention_arrays(sample))} == {"language"}
    (written,) = page_data([sample], with_heads=True)["samples"]
    assert written["pictures"] == []


class Board:
    """Keeps what TensorBoard would be given."""

    def __init__(self) -> None:
        self.images: dict[str, Any] = {}
        self.scalars: dict[str, float] = {}

    def add_image(self, tag: str, image: Any, _step: int, **_: Any) -> None:
        self.images[tag] = image

    def add_scalar(self, tag: str, value: float, _step: int) -> None:
        self.scalars[tag] = value


def test_figures_and_maps_during_training_name_what_stands_between_tiles(tmp_path: Path) -> None:
    sample = shown(tmp_path, "idefics3", 1)
    for figure in (overlay_figure(sample), activation_figure(sample, "vision"), activation_figure(sample, "language")):
        with Image.open(io.BytesIO(figure)) as opened:
            assert opened.width > 300
    board = Board()
    log_sample(board, "s", sample.sides[0].attention, 0)
    assert set(board.images) == {"attention/language/s", "attention/vision/s"}
    assert {f"attention/language/{span}/s" for span in ("image", "patch", "textual_prompt")} <= set(board.scalars)


def test_pictures_are_shown_with_the_pixels_that_a_prompt_adds(tmp_path: Path) -> None:
    """As the tuned model's tower reads them: of every tile the border alone is another."""
    backbones = [tmp_path / "untouched", tmp_path / "prompted"]
    (untouched,) = shown(backbones[0], "idefics3", 1).pictures
    (prompted,) = shown(backbones[1], "idefics3", 1, PixelPrompting(border=0.2, init_std=0.5)).pictures
    border = numpy.ones((16, 16), dtype=bool)
    border[3:-3, 3:-3] = False
    assert numpy.array_equal((untouched != prompted).any(axis=-1), numpy.tile(border, (3, 2)))
