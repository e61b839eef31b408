"""Attention maps of whole models: those that transformers itself computes, tile by tile and window by window."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.inputs.batch import Batch, Span
from lightning_m2pt.inspection.attention import capture_attention
from lightning_m2pt.inspection.named_maps import SampleAttention
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.prompts.rotary_axes import on_three_axes
from lightning_m2pt.testing.passes import batch_for
from tests.backbones import test_three_axes, test_tiles
from tests.prompts.test_parity import overwritten
from tests.support.towers.float64_islands import float64_islands
from tests.support.whole_models import llava_config, write_whole_model

TEXTUAL, VISUAL = 3, 2
GRIDS_OF_IDEFICS = [(1, 2), (0, 0), (0, 0), (2, 2)]
"""Rows and columns of the tiles of four pictures, to which a small copy is added."""


def llava(folder: Path) -> tuple[VisionLanguageModel, Any, Batch]:
    from transformers import AutoModelForImageTextToText

    write_whole_model(folder, llava_config())
    backbone = VisionLanguageModel(str(folder), dtype="float64")
    backbone.load()
    library = AutoModelForImageTextToText.from_pretrained(str(folder), dtype=torch.float64, trust_remote_code=False)
    return backbone, library.eval(), batch_for(backbone)


def tiled(name: str) -> Callable[[Path], tuple[VisionLanguageModel, Any, Batch]]:
    def made(folder: Path) -> tuple[VisionLanguageModel, Any, Batch]:
        case = test_tiles.both(folder, name)
        if case.batch.picture_sizes is None:
            case.batch.picture_sizes = torch.tensor(GRIDS_OF_IDEFICS)
        return case.backbone, case.library, case.batch

    return made


def qwen(folder: Path) -> tuple[VisionLanguageModel, Any, Batch]:
    return *test_three_axes.both(folder), test_three_axes.batch_and_samples()[0]


MODELS: dict[str, Callable[[Path], tuple[VisionLanguageModel, Any, Batch]]] = {
    "llava": llava,
    "onevision": tiled("onevision"),
    "next": tiled("next"),
    "idefics3": tiled("idefics3"),
    "smolvlm": tiled("smolvlm"),
    "qwen2.5": qwen,
}


def with_prompts(backbone: VisionLanguageModel) -> M2PT:
    """Attaches prompts of every layer wherever they are legal."""
    visual = 0 if backbone.shape.visual_prompts_refused else VISUAL
    method = M2PT(visual, TEXTUAL, interaction=False, init="normal", init_std=0.5, visual_rows_to_text="none")
    method.check(backbone.shape)
    method.build(backbone, torch.Generator().manual_seed(7))
    method.double().attach(backbone)
    return method


@contextmanager
def spied(monkeypatch: pytest.MonkeyPatch, attentions: list[Any]) -> Iterator[dict[Any, list[Tensor]]]:
    """Collects what the eager function of the library's own files gives for these modules, call by call."""
    found: dict[Any, list[Tensor]] = {attention: [] for attention in attentions}
    with monkeypatch.context() as patch:
        for file in {type(attention).__module__ for attention in attentions}:
            original = sys.modules[file].eager_attention_forward

            def kept(module: Any, *given: Any, original: Any = original, **named: Any) -> Any:
                output, probabilities = original(module, *given, **named)
                if module in found:
                    found[module].append(probabilities)
                return output, probabilities

            patch.setattr(sys.modules[file], "eager_attention_forward", kept)
        yield found


def library_maps(
    backbone: VisionLanguageModel, library: Any, batch: Batch, method: M2PT, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Returns the library's own maps of the decoder's layers and of the tower's blocks, call by call.

    The library's model runs with its eager attention. Prompt rows are put in by hooks of these tests; where the
    connector cannot have them, its tower's rows are read off before it.
    """
    family = backbone.family
    blocks = list(library.get_submodule(family.tower).get_submodule(family.blocks))[: backbone.form.used_blocks]
    layers = list(library.get_submodule(family.decoder).layers)
    library.set_attn_implementation("eager")
    attention_of = [getattr(block, "self_attn", None) or block.attn for block in (*blocks, *layers)]
    textual = [method.textual_prompts.rows[str(layer)] for layer in range(len(layers))]
    visual = method.visual_prompts
    rows_of_tower = [] if visual is None else [visual.rows[str(layer)] for layer in range(len(blocks))]
    with torch.no_grad():
        embedded = backbone.assembled(batch)
        room = embedded.embeddings.new_zeros(len(batch), TEXTUAL, embedded.embeddings.shape[-1])
        given = {"inputs_embeds": torch.cat([room, embedded.embeddings], dim=1), "use_cache": False}
        if embedded.positions is not None:
            front = torch.arange(TEXTUAL).expand(3, len(batch), -1)
            given["position_ids"] = torch.cat([front, on_three_axes(embedded.positions.expand(3, -1, -1)) + TEXTUAL], 2)
        with spied(monkeypatch, attention_of) as found:
            with overwritten(layers, textual, prepend_at_first=False):
                library.get_submodule(family.decoder)(**given)
            with overwritten(blocks[: len(rows_of_tower)], rows_of_tower, prepend_at_first=True):
                if family.has_three_axes:
                    library.get_submodule(family.tower)(batch.pixel_values, grid_thw=batch.picture_sizes)
                else:
                    family.tower_states(library, batch.pixel_values)
    maps = [found[attention] for attention in attention_of]
    return maps[len(blocks) :], maps[: len(blocks)]


@pytest.mark.parametrize("name", [*MODELS])
def test_maps_are_the_librarys_for_every_picture_tile_and_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    backbone, library, batch = MODELS[name](tmp_path)
    method = with_prompts(backbone)
    with float64_islands(monkeypatch, library):
        samples = capture_attention(backbone, batch)
        decoder, tower = library_maps(backbone, library, batch, method, monkeypatch)
        spans = backbone(batch).spans
    for number, sample in enumerate(samples):
        real = TEXTUAL + int((spans[number] != Span.PADDING).sum())
        assert len(sample.language) == len(decoder)
        for found, (expected,) in zip(sample.language, decoder, strict=True):
            assert found.spans.tolist() == [Span.TEXTUAL_PROMPT] * TEXTUAL + spans[number, : real - TEXTUAL].tolist()
            torch.testing.assert_close(found.probabilities, expected[number, :, :real, :real], rtol=0, atol=1e-12)
        assert int((sample.language[0].spans == Span.PATCH).sum()) == sum(len(each.rows) for each in sample.pictures)
        assert len(sample.vision) == sum(len(each.tiles) for each in sample.pictures)
    assert [len(sample.pictures) for sample in samples] == ([1] * 4 if name == "llava" else [1, 2, 0, 1])
    check = check_windows if name == "qwen2.5" else check_tiles
    check(backbone, batch, samples, tower)


def check_tiles(
    backbone: VisionLanguageModel, batch: Batch, samples: list[SampleAttention], tower: list[list[Tensor]]
) -> None:
    """Every tile has the maps that the library's tower has of it, the prompts' columns first."""
    tiles = [tile for sample in samples for tile in sample.vision]
    assert len(tiles) == len(batch.pixel_values)
    names = [Span.VISUAL_PROMPT] * VISUAL + [Span.CLS] * backbone.form.has_cls + [Span.PATCH] * backbone.shape.patches
    for number, layers in enumerate(tiles):
        for found, (expected,) in zip(layers, tower, strict=True):
            assert found.spans.tolist() == names
            torch.testing.assert_close(found.probabilities, expected[number], rtol=0, atol=1e-12)


def check_windows(
    backbone: VisionLanguageModel, batch: Batch, samples: list[SampleAttention], tower: list[list[Tensor]]
) -> None:
    """Every window's map is the library's, each patch where it lies; a row gives nothing to other windows."""
    del backbone
    assert batch.picture_sizes is not None
    maps = [layers for sample in samples for layers in sample.vision]
    for layer, calls in enumerate(tower):
        pieces = iter(calls)
        for (_, lines, columns), layers in zip(batch.picture_sizes.tolist(), maps, strict=True):
            found, windows = layers[layer].probabilities, windows_by_hand(lines, columns)
            expected = torch.zeros_like(found)
            for places in [torch.cat(windows)] if layer == 1 else windows:
                expected[:, places[:, None], places] = next(pieces)[0]
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
            assert layers[layer].spans.tolist() == [Span.PATCH] * (lines * columns)
        assert next(pieces, None) is None


def windows_by_hand(lines: int, columns: int) -> list[Tensor]:
    """Returns the numbers, line by line, of the patches of windows of four a side, two by two as they are joined."""
    return [
        torch.tensor(
            [
                (line + down) * columns + column + across
                for line in range(top, min(top + 4, lines), 2)
                for column in range(left, min(left + 4, columns), 2)
                for down in (0, 1)
                for across in (0, 1)
            ]
        )
        for top in range(0, lines, 4)
        for left in range(0, columns, 4)
    ]
