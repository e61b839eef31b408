"""The frozen pair answers as transformers' ``generate`` does, one question at a time: tokens and words.

Greedy answers are whole numbers, so they are equal or not; a tie within rounding would make that a matter of luck. In
float32 our logits differ from the library's by about 1e-5, so every choice compared here has to be clear by more.
"""

import pytest
import torch

from lightning_m2pt.answering.asked_pictures import asked_pictures, planned_batches, read_batch
from lightning_m2pt.answering.greedy import GreedyAnswer, greedy_answers
from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.inputs.named_templates import template_named
from lightning_m2pt.inputs.picture_layout import ONE_RUN
from tests.real.pair import LibraryPair, batch_of, first_of_each, records, sample_of

pytestmark = pytest.mark.real

NEW_TOKENS = 16
CLEAR = 2e-4


def assert_generated(library: LibraryPair, asked: list, answers: list[GreedyAnswer]) -> None:
    """Compares answers with ``generate``'s to the same questions; the words say something."""
    for record, answer in zip(asked, answers, strict=True):
        expected = library.generated(record.image, record.instruction, NEW_TOKENS)
        assert answer.margin > CLEAR
        assert answer.token_ids == expected
        assert len(library.tokenizer.decode(expected, skip_special_tokens=True).strip()) > 1
    assert len({tuple(answer.token_ids) for answer in answers}) == len(answers)


def test_pixels_and_the_picture_s_rows_are_the_library_s(backbone: TowerAndDecoder, library: LibraryPair) -> None:
    """float32: eleven blocks of the tower in another order of sums."""
    (record,) = records(1, 1)
    pixels = batch_of(backbone, [sample_of(record)]).pixel_values
    assert torch.equal(pixels, library.pixels(record.image))
    with torch.no_grad():
        found, expected = backbone.connected_rows(pixels).rows, library.picture_rows(pixels)
    torch.testing.assert_close(found.view_as(expected), expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


def test_one_question(backbone: TowerAndDecoder, library: LibraryPair) -> None:
    asked = records(1, 1)
    batch = batch_of(backbone, [sample_of(record, answered=False) for record in asked], answered=False)
    assert_generated(library, asked, greedy_answers(backbone, batch, NEW_TOKENS, library.end))


def test_four_questions_of_different_lengths_at_once(backbone: TowerAndDecoder, library: LibraryPair) -> None:
    asked = first_of_each(records(6, 3), 6)
    asked = list({len(library.tokens(record.instruction)): record for record in asked}.values())[:4]
    assert len(asked) == 4
    batch = batch_of(backbone, [sample_of(record, answered=False) for record in asked], answered=False)
    assert_generated(library, asked, greedy_answers(backbone, batch, NEW_TOKENS, library.end))


def test_questions_of_one_picture_share_what_stands_before_them(
    backbone: TowerAndDecoder, library: LibraryPair
) -> None:
    """Two pictures, seven questions: each picture runs once, its questions side by side behind it."""
    asked = records(2, 4)
    samples, processor = [sample_of(record, answered=False) for record in asked], backbone.processor()
    texts = processor.encode_all(samples, template_named("native"), with_answers=False)
    names = [sample.image_id for sample in samples]
    pictures = asked_pictures(samples, texts, [(ONE_RUN,)] * len(samples), names)
    (planned,) = planned_batches(pictures, len(samples))
    batch = read_batch(planned, processor)
    assert len(batch.pixel_values) == 2
    assert backbone.shares_prefix()
    answers = batch.of_every_name(greedy_answers(backbone, batch, NEW_TOKENS, library.end))
    by_name = dict(zip(batch.sample_ids, answers, strict=True))
    assert_generated(library, asked, [by_name[record.id] for record in asked])
