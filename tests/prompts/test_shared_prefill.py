"""The shared-prefix engine gives the numbers of the reference prefill, for every method, whatever the layout."""

from collections.abc import Sequence
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

from lightning_m2pt.answering.decoding_steps import advance
from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.answering.likelihood import Candidates, candidate_log_probabilities
from lightning_m2pt.answering.shared_prefill import prefill_pictures
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.inputs.collate import padded
from lightning_m2pt.inputs.picture_batch import PictureBatch, picture_batch
from lightning_m2pt.inputs.processing import EncodedText
from lightning_m2pt.testing.random_backbone import IMAGE_SIZE, VOCABULARY, random_backbone
from tests.methods.test_every_method import METHODS, built
from tests.prompts.test_parity import built_method, float64_islands

TOLERANCE = 1e-10
QUESTIONS = (3, 1, 2)
"""How many questions each of the pictures has."""
TAKES_THE_REFERENCE = {
    "aprompt",
    "aprompt without query prompts",
    "aprompt without keys and values",
    "aprompt and visual prompts",
}
CANDIDATES = Candidates(("a", "b", "c", "d"), ((5, 0), (6, 7, 8, 0), (6, 7, 9, 0), (10,)))


def encoded(ids: Sequence[int]) -> EncodedText:
    spans = [Span.IMAGE if token == IMAGE_TOKEN_ID else Span.QUESTION for token in ids]
    return EncodedText(numpy.array(ids, numpy.int32), numpy.array(spans, numpy.int8))


def both_batches(
    before: int, common: int, questions: Sequence[int] = QUESTIONS, own: int = 0
) -> tuple[PictureBatch, Batch]:
    """Returns the same questions by picture and one by one; they begin alike and are of many lengths.

    ``own`` tokens in front of each picture are that picture's own.
    """
    generator = torch.Generator().manual_seed(before + common)
    first, behind = (torch.randint(3, VOCABULARY, (size,), generator=generator).tolist() for size in (before, common))
    texts = []
    for picture, count in enumerate(questions):
        in_front = [*first, *[5 + picture] * own, IMAGE_TOKEN_ID, *behind]
        ends = [[3 + (picture + slot) % 7, *range(4, 4 + (5 * picture + 3 * slot) % 8)] for slot in range(count)]
        texts.append([encoded([*in_front, *end]) for end in ends])
    pixels = torch.randn(len(questions), 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator, dtype=torch.float64)
    names = [[[f"{picture}/{slot}"] for slot in range(count)] for picture, count in enumerate(questions)]
    by_picture = picture_batch(pixels, texts, names)
    flat = [text for of_picture in texts for text in of_picture]
    ids, spans = padded([text.input_ids for text in flat], 0), padded([text.spans for text in flat], Span.PADDING)
    labels = torch.full_like(ids, -100)
    one_by_one = Batch(pixels[by_picture.pictures], ids, labels, spans, by_picture.sample_ids, [("",)] * len(flat))
    return by_picture, one_by_one


def largest_difference(backbone: OpenClipLlama, by_picture: PictureBatch, one_by_one: Batch) -> float:
    """Compares the prefill and two steps of decoding, in the first of which half of the questions have ended."""
    differences: list[Tensor] = []
    with torch.inference_mode():
        state, reference = prefill_pictures(backbone, by_picture), backbone.prefill(one_by_one)
        differences.append((state.logits - reference.logits).abs().max())
        going_on = torch.arange(len(by_picture.pictures))
        for left in (slice(0, None, 2), slice(None)):
            tokens = reference.logits.argmax(dim=-1)
            reference = advance(backbone, reference, tokens)
            kept = torch.arange(len(going_on))[left]
            going_on = going_on[left]
            state = advance(backbone, state, tokens[going_on], kept)
            differences.append((state.logits - reference.logits[going_on]).abs().max())
    return float(torch.stack(differences).max())


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_gives_the_reference_s_numbers(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with float64_islands(monkeypatch):
        backbone = random_backbone(tmp_path, torch.float64)
        # A trained norm of the tower computes in float32 whatever its type.
        in_float32 = name == "layernorm with tower"
        method, tolerance = built(name, backbone), 1e-6 if in_float32 else TOLERANCE
        (method if in_float32 else method.double()).attach(backbone)
        assert backbone.shares_prefix() == (name not in TAKES_THE_REFERENCE)
        if backbone.shares_prefix():
            assert largest_difference(backbone, *both_batches(before=4, common=2)) < tolerance


@pytest.mark.parametrize(
    ("arguments", "shares"),
    [
        (None, True),
        ({}, True),
        ({"visual_rows_to_text": "all"}, True),
        ({"visual_rows_to_text": "none", "textual_length": 0}, True),
        ({"path": "token"}, False),
        ({"textual_layers": [0, 2]}, False),
        ({"textual_depth": "shallow"}, False),
    ],
    ids=str,
)
@pytest.mark.parametrize(("before", "common", "questions"), [(0, 0, (1, 4)), (1, 3, (1,)), (6, 0, (2, 2, 5))], ids=str)
def test_every_layout_gives_the_reference_s_numbers(
    tmp_path: Path,
    arguments: dict[str, object] | None,
    shares: bool,
    before: int,
    common: int,
    questions: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with float64_islands(monkeypatch):
        backbone = random_backbone(tmp_path, torch.float64)
        if arguments is not None:
            built_method(backbone, torch.float64, **arguments).attach(backbone)
        assert backbone.shares_prefix() == shares
        if shares:
            assert largest_difference(backbone, *both_batches(before, common, questions)) < TOLERANCE


@pytest.mark.parametrize("name", ["m2pt", "ptum prefix", "lora with tower", "projector"])
def test_answers_and_log_probabilities_are_the_reference_s(tmp_path: Path, name: str) -> None:
    backbone = random_backbone(tmp_path, torch.float64)
    built(name, backbone).attach(backbone)
    by_picture, one_by_one = both_batches(before=3, common=1, questions=(4, 1, 3))
    # A random model ends its answers at a token it gives often: some answers end at once, some later, some never.
    end = greedy_answers(backbone, one_by_one, 4, end_token_id=0)[0].token_ids[1]
    expected = greedy_answers(backbone, one_by_one, 5, end)
    found = greedy_answers(backbone, by_picture, 5, end)
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]
    assert [one.margin for one in found] == pytest.approx([one.margin for one in expected], abs=1e-5)
    assert len({len(one.token_ids) for one in found}) > 1
    sums = candidate_log_probabilities(backbone, by_picture, CANDIDATES)
    torch.testing.assert_close(sums, candidate_log_probabilities(backbone, one_by_one, CANDIDATES), atol=1e-5, rtol=0)


@pytest.mark.parametrize("choice", ["official", "all", "none"])
def test_raw_prompt_rows_behind_tokens_of_each_picture_s_own(
    tmp_path: Path, choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with float64_islands(monkeypatch):
        backbone = random_backbone(tmp_path, torch.float64)
        built_method(backbone, torch.float64, visual_rows_to_text=choice).attach(backbone)
        by_picture, one_by_one = both_batches(before=3, common=2, own=2)
        assert not bool((by_picture.tokens[:, 0] == IMAGE_TOKEN_ID).any())
        assert largest_difference(backbone, by_picture, one_by_one) < TOLERANCE
