"""Families whose pictures are several tiles: the library's logits, answers and features for pictures of every form."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.inputs.collate import padded
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.tuning.losses import supervised_rows
from tests.support.towers.float64_islands import float64_islands
from tests.support.whole_models import idefics3_config, next_config, onevision_config, write_whole_model

IMAGE_TOKEN = 59
SIZES = [(3, 15, 30), (1, 16, 16), (5, 32, 29), (1, 30, 9)]
"""Tiles, height and width of four pictures; one of them has its grid made smaller by the library, and pictures beside
others in a sample of OneVision are one tile each."""
SIZES_OF_NEXT = [(3, 15, 30), (2, 16, 16), (5, 32, 29), (3, 30, 9)]
"""LLaVA-NeXT has tiles of every picture, and a small copy."""
OF_SAMPLES = [[0], [1, 3], [], [2]]
"""The pictures of four samples."""
CONFIGS: dict[str, Callable[[], dict[str, Any]]] = {
    "onevision": onevision_config,
    "next": next_config,
    "idefics3": idefics3_config,
    "smolvlm": lambda: idefics3_config("smolvlm", "SmolVLM"),
}


@dataclass
class Both:
    """One model twice, and one batch in the words of each.

    Attributes:
        backbone: Ours.
        library: transformers'.
        batch: Four samples with one, two, no and one picture.
        samples: For each of them what the library is given.
    """

    backbone: VisionLanguageModel
    library: Any
    batch: Batch
    samples: list[dict[str, Tensor]]


def both(folder: Path, name: str, answer: int = 0) -> Both:
    from transformers import AutoModelForImageTextToText

    write_whole_model(folder, CONFIGS[name]())
    backbone = VisionLanguageModel(str(folder), dtype="float64")
    backbone.language_model = backbone.files.load(torch.float64)
    backbone.finish()
    library = AutoModelForImageTextToText.from_pretrained(str(folder), dtype=torch.float64, trust_remote_code=False)
    generator = torch.Generator().manual_seed(0)
    of_family = SIZES_OF_NEXT if name == "next" else SIZES
    tiles = [torch.randn(size[0], 3, 16, 16, generator=generator, dtype=torch.float64) for size in of_family]
    sizes = torch.tensor(of_family) if name in {"onevision", "next"} else None
    counts = backbone.rows_of_runs(torch.cat(tiles), sizes)
    runs = [[counts[number]] if sizes is not None else [4] * len(tiles[number]) for number in range(len(tiles))]
    ids, labels, spans, samples = [], [], [], []
    for sample, pictures in enumerate(OF_SAMPLES):
        ours = torch.randint(4, 58, (3 + sample,), generator=generator).tolist()
        theirs = list(ours)
        for picture in pictures:
            for rows in runs[picture]:
                token = int(torch.randint(4, 58, (), generator=generator))
                ours += [IMAGE_TOKEN_ID, token]
                theirs += [IMAGE_TOKEN] * rows + [token]
        ids.append(torch.tensor(ours).numpy())
        spans.append(torch.tensor([Span.IMAGE if each < 0 else Span.QUESTION for each in ours]).numpy())
        spans[-1][len(ours) - answer :] = Span.ANSWER
        labels.append(
            torch.where(torch.from_numpy(spans[-1]) == Span.ANSWER, torch.tensor(ours), IGNORED_LABEL).numpy()
        )
        given = {"input_ids": torch.tensor([theirs]), "attention_mask": torch.ones(1, len(theirs), dtype=torch.long)}
        samples.append(given | library_pictures(tiles, pictures, sizes))
        if name == "next":
            samples[-1].pop("batch_num_images", None)
    batch = Batch(
        pixel_values=torch.cat(tiles)[torch.tensor(order_of_tiles(tiles))],
        input_ids=padded(ids, 3),
        labels=padded(labels, IGNORED_LABEL),
        spans=padded(spans, Span.PADDING),
        sample_ids=["a", "b", "c", "d"],
        tasks=[("t",)] * 4,
        picture_sizes=None if sizes is None else sizes[[each for pictures in OF_SAMPLES for each in pictures]],
    )
    return Both(backbone, library.eval(), batch, samples)


def order_of_tiles(tiles: list[Tensor]) -> list[int]:
    """Returns the numbers of all tiles in the order of the samples' pictures."""
    begins = torch.tensor([0, *(len(each) for each in tiles)]).cumsum(0).tolist()
    return [tile for pictures in OF_SAMPLES for each in pictures for tile in range(begins[each], begins[each + 1])]


def library_pictures(tiles: list[Tensor], pictures: list[int], sizes: Tensor | None) -> dict[str, Tensor]:
    """Returns pixels as the library's processors hand them over; it pads pictures with fewer tiles by zeros."""
    if not pictures:
        return {}
    if sizes is None:
        return {"pixel_values": torch.cat([tiles[each] for each in pictures])[None]}
    most = max(len(tiles[each]) for each in pictures)
    full = [torch.nn.functional.pad(tiles[each], (0, 0, 0, 0, 0, 0, 0, most - len(tiles[each]))) for each in pictures]
    return {
        "pixel_values": torch.stack(full),
        "image_sizes": sizes[pictures, 1:],
        "batch_num_images": torch.tensor([len(pictures)]),
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_answers_are_the_librarys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    case = both(tmp_path, name)
    with torch.no_grad(), float64_islands(monkeypatch, case.library):
        found = case.backbone.logits(case.backbone(case.batch).hidden_states)
        for sample, given in enumerate(case.samples):
            expected = case.library(**given).logits[0]
            torch.testing.assert_close(found[sample, : len(expected)], expected, rtol=1e-12, atol=1e-12)
    suppressed = list(case.backbone.never_answered)
    assert suppressed == ([59, 58] if name == "onevision" else [59])  # pictures' and videos'
    for answer, given in zip(greedy_answers(case.backbone, case.batch, 5, end_token_id=-1), case.samples, strict=True):
        generated = case.library.generate(
            **given, max_new_tokens=5, do_sample=False, eos_token_id=None, suppress_tokens=suppressed
        )
        assert answer.token_ids == generated[0, given["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("name", CONFIGS)
def test_both_paths_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    case, found = both(tmp_path, name, answer=2), []
    with float64_islands(monkeypatch, case.library):
        for path, shortcuts in (("token", EVERY_ROW), ("prefix", EVERY_ROW), ("prefix", Shortcuts())):
            method = M2PT(3, 4, init="normal", init_std=0.5, path=path, visual_rows_to_text="none")
            method.build(case.backbone, torch.Generator().manual_seed(7))
            method.double().attach(case.backbone)
            losses = supervised_rows(case.backbone, case.batch, shortcuts).losses
            losses.sum().backward()
            gradients = {each: tensor.grad for each, tensor in method.named_parameters()}
            found.append({"losses": losses.detach(), **gradients})
            method.detach(case.backbone)
    for other in found[1:]:
        for each, numbers in found[0].items():
            scale = max(float(numbers.abs().max()), 1e-3)
            torch.testing.assert_close(other[each], numbers, rtol=0, atol=1e-11 * scale, msg=each)


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_are_known_by_arithmetic(tmp_path: Path, name: str) -> None:
    case = both(tmp_path, name)
    with torch.no_grad():
        rows = case.backbone.connected_rows(case.batch.pixel_values, case.batch.picture_sizes)
    assert case.backbone.rows_of_runs(case.batch.pixel_values, case.batch.picture_sizes) == rows.counts
    assert len(rows.rows) == len(rows.spans) == sum(rows.counts)
    has_line_ends = case.batch.picture_sizes is not None
    assert set(rows.spans.tolist()) == ({Span.PATCH, Span.LINE_END} if has_line_ends else {Span.PATCH})
    if has_line_ends:
        learned = rows.rows[rows.spans == Span.LINE_END]
        assert torch.equal(learned, case.library.model.image_newline.expand(len(learned), -1))
        lines = [each.tolist().count(Span.LINE_END) for each in rows.spans.split(rows.counts)]
        geometry, sizes = case.backbone.picture_geometry(), case.batch.picture_sizes.tolist()
        patches = [len(geometry.map(tuple(size)).rows) for size in sizes]
        assert [sum(counts) for counts in zip(lines, patches, strict=True)] == rows.counts


@pytest.mark.parametrize("name", ["onevision", "next"])
def test_what_a_configuration_leaves_out_is_as_in_the_library(tmp_path: Path, name: str) -> None:
    config = CONFIGS[name]()
    write_whole_model(tmp_path, config)
    before = VisionLanguageModel(str(tmp_path)).shape.vision_layers
    for key in ("vision_feature_layer", "vision_feature_select_strategy"):
        del config[key]
    (tmp_path / "config.json").write_text(json.dumps(config))
    backbone = VisionLanguageModel(str(tmp_path))
    assert backbone.shape.vision_layers == before
    backbone.check_files()


def test_a_pixel_shuffle_that_does_not_divide_a_line_of_patches_is_refused(tmp_path: Path) -> None:
    config = {**idefics3_config(), "scale_factor": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInputError, match="3 does not divide a line of 4 patches") as caught:
        VisionLanguageModel(str(tmp_path))
    assert "scale_factor" in caught.value.where


@pytest.mark.parametrize("name", ["onevision", "next", "idefics3"])
def test_raw_prompt_rows_are_refused_by_their_reason(tmp_path: Path, name: str) -> None:
    write_whole_model(tmp_path, CONFIGS[name]())
    shape = VisionLanguageModel(str(tmp_path)).shape
    with pytest.raises(BadInputError, match="has no place") as caught:
        M2PT(3, 2).check(shape)
    assert caught.value.where == "model.method.visual_rows_to_text"
    M2PT(0, 2).check(shape)
    M2PT(3, 2, visual_rows_to_text="none").check(shape)
