"""The self-test with positions on three axes: the whole model of the library with pictures, and planted faults."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_m2pt.backbones import causal_decoding
from lightning_m2pt.backbones.connected_rows import ConnectedRows
from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.prompts import rotary_axes
from lightning_m2pt.testing.method_contract import everything_of
from lightning_m2pt.tuning.self_test import refuse_unless_like_library
from tests.support.whole_models import qwen_config, write_whole_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    write_whole_model(folder, qwen_config())
    return folder


def loaded(folder: Path, dtype: str = "float32", path: str = "auto") -> VisionLanguageModel:
    backbone = VisionLanguageModel(str(folder), dtype=dtype)
    backbone.load()
    method = M2PT(0, 3, init="normal", init_std=0.5, path=path)
    method.build(backbone, torch.Generator().manual_seed(7))
    with torch.no_grad():
        for tensor in method.named_tensors().values():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(3)))
    method.attach(backbone)
    return backbone


def compare_everything(backbone: VisionLanguageModel) -> None:
    for shortcuts in (Shortcuts(), EVERY_ROW):
        refuse_unless_like_library(backbone, "training", shortcuts)
    refuse_unless_like_library(backbone, "answering", Shortcuts())


@pytest.mark.parametrize(
    ("dtype", "path"), [("float64", "prefix"), ("float32", "auto"), ("float32", "token"), ("bfloat16", "auto")]
)
def test_it_passes_says_nothing_and_leaves_nothing_behind(
    folder: Path, dtype: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    backbone = loaded(folder, dtype, path)
    before, state = everything_of(backbone), torch.get_rng_state()
    compare_everything(backbone)
    assert "not compared" not in caplog.text
    assert everything_of(backbone) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert backbone.language_model.model.rope_deltas is None
    assert "connected_rows" not in vars(backbone)


def test_invented_pictures_reach_into_a_second_window(folder: Path) -> None:
    backbone = loaded(folder)
    pixels, sizes = backbone.invented_pictures(3, torch.Generator())
    assert sizes is not None
    assert sizes.tolist() == [[1, 4, 6], [1, 6, 4], [1, 4, 6]]  # a window has four patches a side
    assert len(pixels) == 72
    order = backbone.picture_geometry().order_in_tower(sizes)
    assert order is not None
    assert order[:24].tolist() != list(range(24))
    assert sorted(order.tolist()) == list(range(72))


def changed_rows(change: Callable[[ConnectedRows], ConnectedRows]) -> Callable[[pytest.MonkeyPatch], None]:
    original = VisionLanguageModel.connected_rows

    def connected(backbone: VisionLanguageModel, *given: Tensor) -> ConnectedRows:
        return change(original(backbone, *given))

    return lambda patch: patch.setattr(VisionLanguageModel, "connected_rows", connected)


def one_further(rows: ConnectedRows) -> ConnectedRows:
    assert rows.advances is not None
    return replace(rows, advances=rows.advances + (rows.advances > 0))


def lines_for_columns(rows: ConnectedRows) -> ConnectedRows:
    assert rows.within is not None
    lines, columns = rows.within >> rotary_axes.BITS, rows.within >> 2 * rotary_axes.BITS
    return replace(rows, within=rotary_axes.coded(columns, lines & rotary_axes.LARGEST))


def in_windows(rows: ConnectedRows) -> ConnectedRows:
    """As if the merger's rows had been left in the order of the first picture's windows."""
    order = torch.tensor([0, 1, 3, 4, 2, 5])
    return replace(rows, rows=torch.cat([rows.rows[order], rows.rows[6:]]))


def without_last(rows: ConnectedRows) -> ConnectedRows:
    assert rows.advances is not None
    assert rows.within is not None
    kept = torch.arange(len(rows.rows) - 1)
    counts = [*rows.counts[:-1], rows.counts[-1] - 1]
    return ConnectedRows(rows.rows[kept], rows.spans[kept], counts, rows.advances[kept], rows.within[kept])


def decoded_one_further(patch: pytest.MonkeyPatch) -> None:
    behind = rotary_axes.behind
    patch.setattr(causal_decoding, "behind", lambda positions: behind(positions) + 1)


def without_pictures_positions(patch: pytest.MonkeyPatch) -> None:
    """As if the passes read a row's number in the place of its position."""
    patch.setattr(causal_decoding, "numbers_in_front", lambda _, rows, length: ORIGINAL_NUMBERS(None, rows, length))


ORIGINAL_NUMBERS = causal_decoding.numbers_in_front
FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str, str]] = {
    "text behind a picture one further": (changed_rows(one_further), "training answering", "the positions of"),
    "lines and columns exchanged": (changed_rows(lines_for_columns), "training answering", "the positions of"),
    "rows in the order of windows": (changed_rows(in_windows), "training answering", "what stands for pictures"),
    "a dropped row": (changed_rows(without_last), "training answering", "the number of rows"),
    "the next token one further": (decoded_one_further, "answering", "decoding token by token"),
    "rows' numbers for positions": (without_pictures_positions, "answering", "reading questions"),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("what", FAULTS)
def test_a_planted_fault_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, what: str, dtype: str) -> None:
    backbone = loaded(folder, dtype)
    plant, uses, named = FAULTS[what]
    plant(monkeypatch)
    for use in uses.split():
        with pytest.raises(BadInputError, match=f"is not that of Qwen2_5_VLTextModel: {named}.* differs? by"):
            refuse_unless_like_library(backbone, use, Shortcuts())  # type: ignore[arg-type]
