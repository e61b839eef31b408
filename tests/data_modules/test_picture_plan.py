"""Batches of whole pictures: a pure function of the questions; what is asked twice is answered once."""

import json
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch

from callbacks.predictions import prediction_file
from data_modules.base import as_sample, image_key
from data_modules.pope import POPE, POPEItem, write_pope
from data_modules.sample_rows import layouts_of_samples
from experiments.runs.evaluation import AnsweringOptions, evaluate_frozen
from lightning_m2pt.answering.asked_pictures import asked_pictures, names_of, planned_batches
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch
from lightning_m2pt.inputs.picture_batch import PADDING_SEGMENT, SHARED_SEGMENT, PictureBatch, picture_batch
from lightning_m2pt.inputs.picture_layout import PictureLayout
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.testing.small_processor import small_processor
from tests.runs.test_evaluation import frozen_experiment, rows_of
from tests.support.data_fixtures import fake_pictures

SPLITS = ("random", "popular", "adversarial")
TEXTS = ("Is there a red it?", "Is there a blue it?", "Is it a A?", "the color?")


def pope_with_repeated_questions(folder: Path, batch_size: int = 5) -> POPE:
    """Three splits of three pictures; picture n is asked n + 2 questions in every split, the same ones."""
    items = [
        POPEItem(split, f"{number}.png", picture, text, "yes")
        for split in SPLITS
        for number, picture in enumerate(fake_pictures(3, 12))
        for text in TEXTS[: number + 2]
    ]
    write_pope(folder / "pope", items)
    benchmark = POPE(str(folder / "pope"), "vicuna_v1", batch_size, max_new_tokens=4)
    benchmark.connect(small_processor())
    benchmark.by_picture = True
    return benchmark


def batches_of(benchmark: POPE) -> list[PictureBatch]:
    batches = list(benchmark.predict_dataloader())
    assert all(isinstance(batch, PictureBatch) for batch in batches)
    return batches


def test_every_picture_is_read_once_and_every_question_asked_once(tmp_path, monkeypatch):
    benchmark, read = pope_with_repeated_questions(tmp_path), []
    whole = Processor.image
    monkeypatch.setattr(Processor, "image", lambda self, source, where="": read.append(source) or whole(self, source))
    batches = batches_of(benchmark)
    assert len(read) == len(set(read)) == 3
    assert sum(len(batch.pictures) for batch in batches) == 2 + 3 + 4
    names = [name for batch in batches for name in batch.sample_ids]
    assert sorted(names) == sorted(question.id for question in benchmark.questions())
    text_of = {question.id: (question.image_id, question.text) for question in benchmark.questions()}
    for batch in batches:
        asked = dict(zip(batch.sample_ids, batch.question_of_sample, strict=True))
        assert len({(number, text_of[name]) for name, number in asked.items()}) == len(batch.pictures)
        assert batch.of_every_name(list(range(len(batch.pictures)))) == batch.question_of_sample


@pytest.mark.parametrize("size", [1, 2, 4, 5, 9, 100])
def test_batches_hold_whole_pictures_as_far_as_they_fit(tmp_path, size):
    benchmark = pope_with_repeated_questions(tmp_path, size)
    samples = [as_sample(question) for question in benchmark.questions()]
    texts = benchmark.processor.encode_all(samples, benchmark.template, with_answers=False)
    layouts = layouts_of_samples(samples, benchmark.processor)
    keys = [image_key(sample) for sample in samples]
    pictures = asked_pictures(samples, texts, layouts, keys)
    assert [len(picture.texts) for picture in pictures] == [4, 3, 2]  # the most tokens first
    planned = planned_batches(pictures, size)
    counts = [[len(picture.texts) for picture in batch] for batch in planned]
    assert max(map(sum, counts)) <= size
    assert (
        counts
        == {
            1: [[1]] * 9,
            2: [[2], [2], [2], [1], [2]],
            4: [[4], [3], [2]],
            5: [[4], [3, 2]],
            9: [[4, 3, 2]],
            100: [[4, 3, 2]],
        }[size]
    )
    named = [name for batch in planned for name in names_of(batch)]
    assert sorted(named) == sorted(sample.id for sample in samples)
    again = planned_batches(asked_pictures(samples, texts, layouts, keys), size)
    assert [names_of(batch) for batch in again] == [names_of(batch) for batch in planned]


def test_what_is_answered_moves_no_other_question(tmp_path):
    benchmark = pope_with_repeated_questions(tmp_path)
    first, second = (batch.sample_ids for batch in batches_of(benchmark))
    benchmark.answered = frozenset(first)
    assert [batch.sample_ids for batch in batches_of(benchmark)] == [second]
    benchmark.answered = frozenset(second[1:])  # a batch that a kill cut off is asked again as a whole
    assert [batch.sample_ids for batch in batches_of(benchmark)] == [first, second]


def test_questions_with_examples_are_asked_one_by_one(tmp_path):
    benchmark = pope_with_repeated_questions(tmp_path)
    benchmark.samples = [as_sample(question) for question in benchmark.questions()]
    assert all(isinstance(batch, Batch) for batch in benchmark.predict_dataloader())


def test_questions_without_a_picture_or_with_two_are_asked_one_by_one(tmp_path):
    for changed in ({"image": None}, {"further_images": (numpy.zeros((3, 5, 3), numpy.uint8),)}):
        benchmark = pope_with_repeated_questions(tmp_path)
        samples = [as_sample(question) for question in benchmark.questions()]
        samples[3] = replace(samples[3], **changed)
        benchmark.asked_samples = lambda asked=samples: asked
        batches = list(benchmark.predict_dataloader())
        assert all(isinstance(batch, Batch) for batch in batches)
        pictures = len(samples) + (-1 if changed.get("image", 0) is None else 1)
        assert sum(len(batch.pixel_values) for batch in batches) == pictures
        assert sum(int((batch.input_ids == IMAGE_TOKEN_ID).sum()) for batch in batches) == pictures


def test_pictures_with_the_most_rows_come_first(tmp_path):
    """Where pictures differ in their rows, those go before the words."""
    benchmark = pope_with_repeated_questions(tmp_path)
    samples = [as_sample(question) for question in benchmark.questions()]
    texts = benchmark.processor.encode_all(samples, benchmark.template, with_answers=False)
    rows = {"0.png": 7, "1.png": 900, "2.png": 7}
    layouts = [[PictureLayout(numpy.array([IMAGE_TOKEN_ID]), (rows[sample.image.name],))] for sample in samples]
    keys = [image_key(sample) for sample in samples]
    pictures = asked_pictures(samples, texts, layouts, keys)
    assert [picture.image.name for picture in pictures] == ["1.png", "2.png", "0.png"]
    assert pictures[0].tokens == 900 + sum(map(len, pictures[0].texts))


def test_rows_are_common_words_then_each_question_s_own(tmp_path):
    benchmark = pope_with_repeated_questions(tmp_path, batch_size=100)
    (batch,) = batches_of(benchmark)
    texts = {
        question.id: benchmark.processor.encode(as_sample(question), benchmark.template, with_answers=False).input_ids
        for question in benchmark.questions()
    }
    for name, number in zip(batch.sample_ids, batch.question_of_sample, strict=True):
        row = batch.pictures[number]
        seen = (batch.segment_ids[row] == SHARED_SEGMENT) | (batch.segment_ids[row] == batch.slots[number])
        laid_out = torch.cat([batch.before, batch.tokens[row][seen]])
        assert laid_out.tolist() == texts[name].tolist()
        assert batch.places[row][seen].tolist() == list(range(int(seen.sum())))
        assert batch.tokens[row, batch.lasts[number]] == texts[name][-1]
    # The picture with the most questions has one that begins otherwise than all the others.
    shared = (batch.segment_ids == SHARED_SEGMENT).sum(dim=1).tolist()
    assert shared[0] == 1
    assert min(shared[1:]) > 1
    assert (batch.tokens[:, 0] == IMAGE_TOKEN_ID).all()
    assert (batch.segment_ids == PADDING_SEGMENT).any()


def test_texts_of_a_picture_that_share_no_beginning_are_refused(tmp_path):
    processor, pixels = small_processor(), torch.zeros(1, 3, 4, 4)
    benchmark = pope_with_repeated_questions(tmp_path)
    text = processor.encode(as_sample(benchmark.questions()[0]), benchmark.template, with_answers=False)
    other = type(text)(numpy.concatenate([text.input_ids[:1], text.input_ids]), text.spans)
    with pytest.raises(ValueError, match="differ before its last placeholder"):
        picture_batch(pixels, [[text, other]], [[["a"], ["b"]]])
    without = type(text)(text.input_ids[:3], text.spans[:3])
    with pytest.raises(ValueError, match="without a picture"):
        picture_batch(pixels, [[without]], [[["a"]]])


@pytest.mark.parametrize("method", ["greedy", "likelihood_sum"])
def test_a_batch_that_was_cut_off_gives_the_same_file_byte_by_byte(tmp_path, method):
    options = AnsweringOptions(method)
    whole, _ = evaluate_frozen(frozen_experiment(tmp_path, output="whole"), options)
    path = prediction_file(whole, "mme")
    header, *lines = path.read_text().splitlines(keepends=True)
    experiment = frozen_experiment(tmp_path, output="cut")
    cut = prediction_file(tmp_path / "cut" / whole.relative_to(tmp_path / "whole"), "mme")
    cut.parent.mkdir(parents=True)
    cut.with_name(f"{cut.name}.partial-0").write_text("".join([header, *lines[1:4]]))
    again, _ = evaluate_frozen(experiment, options)
    assert prediction_file(again, "mme") == cut
    assert cut.read_bytes() == path.read_bytes()
    assert len(rows_of(again, "mme")) == json.loads(header)["questions"] == len(lines)
