"""A step of every family of models, each read from its files, on shared-out weights and on one device."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.m2pt import M2PT
from tests.support.small_training import one_step
from tests.support.strategies.sharded_training import Make, compare, on_both
from tests.support.towers.stored_pairs import TOWERS, store_pair, stored_pair
from tests.support.whole_models import (
    idefics3_config,
    llava_config,
    next_config,
    onevision_config,
    qwen_config,
    write_whole_model,
)

TOLERANCE = 1e-5
"""Prompts are float32 whatever the base is."""
WHOLE = {
    "llava": llava_config,
    "llava, siglip and qwen2": lambda: llava_config("siglip_vision_model", "qwen2"),
    "llava, mistral's window": lambda: llava_config(text="mistral", sliding_window=30),
    "llava-next": next_config,
    "llava-onevision": onevision_config,
    "idefics3": idefics3_config,
    "smolvlm": lambda: idefics3_config("smolvlm", "SmolVLM"),
    "qwen2.5-vl": qwen_config,
    "tied": lambda: llava_config("siglip_vision_model", "qwen2", tie_word_embeddings=True),
}


def method_for(backbone: Backbone) -> Method:
    """Visual prompts where the tower takes them."""
    shape = backbone.shape
    if shape.visual_prompts_refused:
        return M2PT(0, 2, init="normal", init_std=0.5)
    rows = "none" if shape.raw_rows_refused else "official"
    return M2PT(2, 2, visual_rows_to_text=rows, init="normal", init_std=0.5)


def batch_of(backbone: Backbone, seed: int, samples: int = 2, text: int = 8, answer: int = 3) -> Batch:
    """One invented picture a sample, whatever runs of rows it becomes."""
    generator = torch.Generator().manual_seed(seed)
    pixels, sizes = backbone.invented_pictures(samples, generator)
    runs = len(backbone.rows_of_runs(pixels, sizes)) // samples
    ids = torch.randint(3, 40, (samples, text + runs), generator=generator)
    ids[:, 1 : 1 + runs] = IMAGE_TOKEN_ID
    places = torch.arange(text + runs).expand(samples, -1)
    spans = torch.where(places >= text + runs - answer, int(Span.ANSWER), int(Span.QUESTION))
    spans[:, 1 : 1 + runs] = int(Span.IMAGE)
    labels = torch.where(spans == Span.ANSWER, ids, IGNORED_LABEL)
    names = [f"sample{seed}.{number}" for number in range(samples)]
    pixels = pixels.to(getattr(torch, backbone.dtype_name))
    tokens = int((labels != IGNORED_LABEL).sum())
    return Batch(pixels, ids, labels, spans, names, [("task",)] * samples, tokens, sizes)


def check_family(unloaded: Callable[[], Backbone]) -> None:
    def make() -> tuple[Backbone, Method]:
        backbone = unloaded()
        return backbone, method_for(backbone)

    example = unloaded()
    example.load()  # rows are laid out by its modules
    steps = [one_step([batch_of(example, 2 * step), batch_of(example, 2 * step + 1)]) for step in range(2)]
    check(make, steps)


def check(make: Make, steps: list[list[Batch]]) -> None:
    found, expected = on_both(make, steps)
    compare(found, expected, TOLERANCE)
    assert found.share < 0.6
    assert found.gathered


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_whole_models(tmp_path: Path, name: str) -> None:
    write_whole_model(tmp_path, WHOLE[name]())
    check_family(lambda: VisionLanguageModel(str(tmp_path), dtype="float64"))


@pytest.mark.slow
@pytest.mark.parametrize("tower", TOWERS)
def test_pairs(tmp_path: Path, tower: str) -> None:
    store_pair(tmp_path, tower)
    check_family(lambda: stored_pair(tmp_path, "float64"))


def test_a_whole_model_and_ranks_of_which_one_has_no_picture(tmp_path: Path) -> None:
    """The one of many that runs every time: tiles, and rows that a family lays out."""
    write_whole_model(tmp_path, next_config())

    def unloaded() -> Backbone:
        return VisionLanguageModel(str(tmp_path), dtype="float64")

    example = unloaded()
    example.load()
    first, second = batch_of(example, 0), batch_of(example, 1)
    second.input_ids = second.input_ids.clamp(min=3)
    second.pixel_values = second.pixel_values[:0]
    second.picture_sizes = None if second.picture_sizes is None else second.picture_sizes[:0]
    check(lambda: ((backbone := unloaded()), method_for(backbone)), [one_step([first, second])])
