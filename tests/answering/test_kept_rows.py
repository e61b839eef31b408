"""Rows that are kept give the numbers of the whole that is run again, for every method, path, family and window."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_m2pt.answering.kept_rows import KeptRows, read_conversation, same_pictures, with_token
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.inputs.collate import joined_pictures, with_layouts
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.testing.random_backbone import IMAGE_SIZE, random_backbone
from tests.backbones.test_pictures_of_models import CONFIGS, encoded, pictures
from tests.methods.test_every_method import METHODS, built
from tests.prompts.test_parity import built_method
from tests.support.answers.counted_rows import counted
from tests.support.models.decoders import FAMILIES, UNLISTED, of_family, unlisted
from tests.support.towers.float64_islands import float64_islands
from tests.support.whole_models import write_whole_model

TOLERANCE = 1e-12
FIRST, SECOND, ANSWER = (3, 5, IMAGE_TOKEN_ID, 7, 8, 9), (3, 5, IMAGE_TOKEN_ID, 7, 11, 12, 13), (14, 15, 16)
FAST = ("mistral's window", "gemma3", "phi3's longrope")
FAST_METHODS = ("m2pt", "lora", "aprompt", "ptum prefix", "full and prompts", "pixels and prompts")
FAST_REFERENCE = ("starcoder2",)


def some(names: Sequence[str], fast: Sequence[str]) -> pytest.MarkDecorator:
    marked = [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in names]
    return pytest.mark.parametrize("name", marked)


def conversation(ids: Sequence[int], pixels: Tensor, sizes: Tensor | None = None) -> Batch:
    tokens = torch.tensor([list(ids)])
    spans = torch.where(tokens == IMAGE_TOKEN_ID, int(Span.IMAGE), int(Span.QUESTION))
    return Batch(pixels, tokens, torch.full_like(tokens, IGNORED_LABEL), spans, ["asked"], [("",)], picture_sizes=sizes)


def picture(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator, dtype=torch.float64)


def whole(backbone: Backbone, batch: Batch) -> Tensor:
    with torch.inference_mode():
        return backbone.prefill(batch).logits


def close(found: KeptRows, expected: Tensor, tolerance: float) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(found.state.logits, expected, rtol=0, atol=tolerance * scale)


def own_rows(before: Sequence[int], then: Sequence[int]) -> int:
    """Counts the tokens from the first that differs on."""
    alike = 0
    while alike < min(len(before), len(then) - 1) and before[alike] == then[alike]:
        alike += 1
    return len(then) - alike


def talk(backbone: Backbone, first: Batch, second: Batch, *, keeps: bool = True) -> None:
    """Asks, answers, goes on, asks something else about the picture: each as the whole, and each its own rows alone."""
    tokens = first.input_ids[0].tolist()
    asked = kept = read_conversation(backbone, first)
    close(kept, whole(backbone, first), TOLERANCE)
    for token in ANSWER:
        tokens.append(token)
        with counted(backbone) as counts:
            kept = with_token(backbone, kept, token)
        assert counts.rows == 1 or not keeps
        close(kept, whole(backbone, conversation(tokens, first.pixel_values, first.picture_sizes)), TOLERANCE)
    # The next turn: the answer's last token reads otherwise now, and words follow.
    turn = conversation([*tokens[:-1], 17, 18, 19], first.pixel_values, first.picture_sizes)
    for before, then in ((kept, turn), (kept, second), (asked, turn)):
        with counted(backbone) as counts:
            read = read_conversation(backbone, then, before)
        if keeps:
            assert counts.rows == own_rows(before.tokens.tolist(), then.input_ids[0].tolist())
        assert counts.pictures == 0
        close(read, whole(backbone, then), TOLERANCE)
    # What is answered to it stands behind rows that were kept.
    answered = conversation([*turn.input_ids[0].tolist(), 20], first.pixel_values, first.picture_sizes)
    close(with_token(backbone, read, 20), whole(backbone, answered), TOLERANCE)


@some(sorted(METHODS), FAST_METHODS)
def test_every_method(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = random_backbone(tmp_path, torch.float64)
    with float64_islands(monkeypatch, backbone.language_model):
        built(name, backbone).double().attach(backbone)
        talk(backbone, conversation(FIRST, picture()), conversation(SECOND, picture()))


@pytest.mark.parametrize(
    "arguments",
    [
        None,
        {"visual_rows_to_text": "all"},
        {"visual_rows_to_text": "none", "textual_length": 0},
        {"path": "token"},
        {"textual_layers": [1, 2]},
        {"textual_depth": "shallow"},
    ],
    ids=str,
)
def test_every_layout(tmp_path: Path, arguments: dict[str, object] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = random_backbone(tmp_path, torch.float64)
    with float64_islands(monkeypatch, backbone.language_model):
        if arguments is not None:
            built_method(backbone, torch.float64, **arguments).attach(backbone)
        talk(backbone, conversation(FIRST, picture()), conversation(SECOND, picture()))


@some(sorted(FAMILIES), FAST)
@pytest.mark.parametrize("path", ["prefix", "token"])
def test_every_decoder_with_windows_and_rotations(
    tmp_path: Path, name: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = of_family(tmp_path, name)
    with float64_islands(monkeypatch, backbone.language_model):
        built_method(backbone, torch.float64, path=path).attach(backbone)
        talk(backbone, conversation(FIRST, picture()), conversation(SECOND, picture()))


@some(sorted(UNLISTED), FAST_REFERENCE)
def test_every_decoder_that_the_reference_runs(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = random_backbone(tmp_path, torch.float64, language=unlisted(name))
    with float64_islands(monkeypatch, backbone.language_model):
        built_method(backbone, torch.float64).attach(backbone)
        talk(backbone, conversation(FIRST, picture()), conversation(SECOND, picture()), keeps=False)


@some(sorted(CONFIGS), ("qwen", "next"))
@pytest.mark.parametrize("has_prompts", [False, True])
def test_every_whole_model(tmp_path: Path, name: str, has_prompts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole_model(tmp_path, CONFIGS[name]())
    backbone = VisionLanguageModel(str(tmp_path), dtype="float64")
    backbone.load()
    processor = backbone.processor()
    (shown,) = processor.pictures([pictures()[3]])
    pixels, sizes = joined_pictures([shown], processor)
    both = [
        conversation(with_layouts(encoded(processor, text), [shown]).input_ids.tolist(), pixels.double(), sizes)
        for text in ("A <image> what color is it ?", "A <image> what is red ?")
    ]
    with float64_islands(monkeypatch, backbone.language_model):
        if has_prompts:
            method = M2PT(0, 4, init="normal", init_std=0.5)
            method.build(backbone, torch.Generator().manual_seed(7))
            method.double().attach(backbone)
        talk(backbone, *both)


def test_another_picture_or_other_words_before_it_run_the_whole(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path, torch.float64)
    kept = read_conversation(backbone, conversation(FIRST, picture()))
    others = conversation(FIRST, picture(1)), conversation((4, *FIRST[1:]), picture())
    for then in (*others, conversation((3, 5, 6), picture()[:0])):
        with counted(backbone) as counts:
            found = read_conversation(backbone, then, kept)
        assert counts.rows == found.state.past.length
        assert torch.equal(found.state.logits, whole(backbone, then))


def test_the_same_pixels_of_another_size_are_another_picture(tmp_path: Path) -> None:
    """A picture of one colour is the same patches, whether it is wide or high."""
    backbone = random_backbone(tmp_path, torch.float64)
    wide, high = (conversation(FIRST, picture(), torch.tensor([size])) for size in ([2, 8], [8, 2]))
    kept = replace(read_conversation(backbone, conversation(FIRST, picture())), picture_sizes=wide.picture_sizes)
    assert same_pictures(wide, kept)
    assert not same_pictures(high, kept)
    assert not same_pictures(replace(wide, picture_sizes=None), kept)


def test_the_same_question_again_runs_one_row(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path, torch.float64)
    kept = read_conversation(backbone, conversation(FIRST, picture()))
    with counted(backbone) as counts:
        again = read_conversation(backbone, conversation(FIRST, picture()), kept)
    assert (counts.rows, counts.pictures) == (1, 0)
    close(again, kept.state.logits, 1e-6)


def test_words_without_a_picture_are_kept_as_well(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path, torch.float64)
    built("m2pt", backbone).double().attach(backbone)
    none = picture()[:0]
    kept = read_conversation(backbone, conversation((3, 4, 5, 6), none))
    with counted(backbone) as counts:
        found = read_conversation(backbone, conversation((3, 4, 5, 7, 8), none), kept)
    assert counts.rows == 2
    close(found, whole(backbone, conversation((3, 4, 5, 7, 8), none)), 1e-6)


def test_nothing_is_kept_of_what_another_method_has_run(tmp_path: Path) -> None:
    """Low-rank updates have no rows: they are seen by the method that is attached."""
    backbone = random_backbone(tmp_path, torch.float64)
    kept = read_conversation(backbone, conversation(FIRST, picture()))
    for name in ("lora", "m2pt", "full"):
        method = built(name, backbone).double()
        method.attach(backbone)
        with pytest.raises(BadInputError, match="changed while it answered"):
            with_token(backbone, kept, 5)
        then = conversation((*FIRST, 4), picture())
        expected = whole(backbone, then)
        assert torch.equal(read_conversation(backbone, then, kept).state.logits, expected)
        method.detach(backbone)
        assert not torch.equal(whole(backbone, then), expected)


@pytest.mark.parametrize("name", ["m2pt", "lora", "aprompt", "full and prompts"])
def test_the_same_method_attached_again_goes_on(tmp_path: Path, name: str) -> None:
    """Two adapters may take turns on one base: each finds its own rows again, and nobody the other's."""
    backbone = random_backbone(tmp_path, torch.float64)
    methods = [built(name, backbone).double() for _ in range(2)]
    with torch.no_grad():
        for tensor in methods[1].parameters():
            tensor.mul_(1.5)
    kept: list[KeptRows | None] = [None, None]
    for question in (FIRST, SECOND, (*SECOND, 4)):
        found = []
        for number, method in enumerate(methods):
            method.attach(backbone)
            then = conversation(question, picture())
            with counted(backbone) as counts:
                read = read_conversation(backbone, then, kept[number])
            assert (counts.pictures == 0) == (kept[number] is not None)
            kept[number] = read
            close(read, whole(backbone, then), 1e-6)
            found.append(read.state.logits)
            method.detach(backbone)
        assert not torch.allclose(*found)


def test_a_part_that_is_knocked_out_runs_the_whole(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path, torch.float64)
    method = built("lora", backbone).double()
    method.attach(backbone)
    kept = read_conversation(backbone, conversation(FIRST, picture()))
    for part in method.part_names():
        method.attach(backbone, without={part})
        assert not kept.are_of(backbone)
    method.attach(backbone)
    assert kept.are_of(backbone)


def test_other_learned_queries_run_the_whole(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path, torch.float64)
    built("aprompt", backbone).double().attach(backbone)
    kept = read_conversation(backbone, conversation(FIRST, picture()))
    assert kept.are_of(backbone)
    rows = backbone.attachment.query_rows
    backbone.attachment.query_rows = [None if each is None else each.clone() for each in rows]
    assert not kept.are_of(backbone)


def test_one_word_that_stays_is_enough_for_learned_queries(tmp_path: Path) -> None:
    """They stand in for those of prompt rows, which stand in front of all words."""
    backbone = random_backbone(tmp_path, torch.float64)
    built("aprompt without keys and values", backbone).double().attach(backbone)
    none = picture()[:0]
    kept = read_conversation(backbone, conversation((3, 4, 5, 6, 7), none))
    for stay in range(1, 5):
        then = conversation((*(3, 4, 5, 6, 7)[:stay], 9, 9), none)
        with counted(backbone) as counts:
            found = read_conversation(backbone, then, kept)
        assert counts.rows == 2
        close(found, whole(backbone, then), 1e-6)


def test_beyond_the_last_position_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path, torch.float64)
    kept = read_conversation(backbone, conversation(FIRST, picture()))
    with pytest.raises(BadInputError, match="a sequence has"):
        read_conversation(backbone, conversation((*FIRST, *[4] * 128), picture()), kept)
    then = conversation((*FIRST, 4), picture())
    close(read_conversation(backbone, then, kept), whole(backbone, then), 1e-6)


def test_several_conversations_are_no_one(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path, torch.float64)
    one = conversation(FIRST, picture())
    with pytest.raises(ValueError, match="2 conversations"):
        read_conversation(backbone, replace(one, sample_ids=["a", "b"]))
