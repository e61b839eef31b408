"""Samples without a picture, with one and with several: their rows, their files and what they are joined to."""

from itertools import pairwise

import numpy
import pytest
from PIL import Image

from data_modules.base import distinct_pictures, image_bytes, image_key, items_fingerprint, mistakes_in_pictures
from data_modules.instruction import join_conversations
from data_modules.sample_rows import layouts_of_samples, rows_of_samples
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID
from lightning_m2pt.inputs.images import upright_size
from lightning_m2pt.inputs.picture_layout import ONE_RUN, PictureLayout, RunRows, laid_out
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.inputs.templates import PLAIN, VICUNA_V1
from lightning_m2pt.testing.small_processor import small_processor

THREE_RUNS = PictureLayout(
    numpy.array([7, IMAGE_TOKEN_ID, 8, IMAGE_TOKEN_ID, IMAGE_TOKEN_ID, 9], numpy.int32), (4, 5, 6)
)


def sample(name: str, image=None, *further, question="what ?") -> Sample:
    return Sample(name, image, str(image or ""), (Turn(question, "red"),), ("t",), f"{name}.json", (), tuple(further))


class BySize(Processor):
    """A picture has as many rows as pixels."""

    read: list = []

    def layouts(self, sources, where=""):
        sizes = [upright_size(source, where) for source in sources]
        self.read += sources
        return [PictureLayout(ONE_RUN.token_ids, (width * height,)) for width, height in sizes]


@pytest.mark.parametrize(
    ("layout", "rows", "expected"),
    [
        (ONE_RUN, RunRows(16), 16),
        (ONE_RUN, RunRows(16, 3), 19),
        (THREE_RUNS, RunRows(16), 3 + 15),
        (THREE_RUNS, RunRows(16, 2), 3 + 15 + 6),
    ],
)
def test_a_layout_has_its_tokens_and_runs(layout, rows, expected):
    assert rows.of(layout) == expected


def test_rows_of_samples_are_those_of_text_and_pictures(tmp_path):
    for name, size in (("a", (3, 5)), ("b", (2, 2))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    samples = [sample("none"), sample("one", first), sample("two", second, first), sample("again", first)]
    small = small_processor()
    processor = BySize(small.tokenizer, 24, (0.5,) * 3, (0.5,) * 3)
    processor.read = []
    texts = processor.encode_all(samples, PLAIN)
    words = len(texts[0])
    assert [len(text) for text in texts] == [words, words + 1, words + 2, words + 1]
    layouts = layouts_of_samples(samples, processor)
    assert rows_of_samples(texts, layouts, RunRows(1)).tolist() == [words, words + 15, words + 19, words + 15]
    assert processor.read == [first, second, first]  # a sample's pictures once, however many samples show them
    with pytest.raises(BadInputError, match=r"lost\.json: sample lost"):
        layouts_of_samples([sample("lost", tmp_path / "lost.png")], processor)


@pytest.mark.parametrize("template", [VICUNA_V1, PLAIN], ids=lambda template: template.name)
@pytest.mark.parametrize("images", [(), (0,), (3,), (1, 1, 1), (0, 2), (2, 0, 1)], ids=str)
def test_a_template_shows_every_picture_in_its_turn(template, images):
    turns = [Turn(f"question {number} ?", "red") for number in range(3)]
    text = "".join(piece.text for piece in template.pieces(turns, images))
    begins = [0, *(text.index(f"question {number} ?") for number in range(3))]
    shown = [text[begin:end].count("<image>") for begin, end in pairwise(begins)]
    assert shown == [*images, 0, 0, 0][:3]
    with pytest.raises(ValueError, match="4 turns"):
        template.pieces(turns, (1, 1, 1, 1))


def test_layouts_stand_in_the_places_of_pictures():
    ids, spans = numpy.array([5, IMAGE_TOKEN_ID, 6, IMAGE_TOKEN_ID], numpy.int32), numpy.array([1, 8, 2, 8], numpy.int8)
    found = laid_out(ids, spans, [THREE_RUNS, ONE_RUN])
    assert found[0].tolist() == [5, *THREE_RUNS.token_ids.tolist(), 6, IMAGE_TOKEN_ID]
    assert found[1].tolist() == [1, *[8] * 6, 2, 8]
    assert (found[0].dtype, found[1].dtype) == (numpy.int32, numpy.int8)
    with pytest.raises(ValueError, match="1 pictures for 2 placeholders"):
        laid_out(ids, spans, [ONE_RUN])


def test_texts_without_a_picture_are_not_joined(tmp_path):
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    samples = [sample("1"), sample("2", first), sample("3"), sample("4", first), sample("5", first, second)]
    joined = join_conversations([*samples, sample("6", first, second)], 4)
    assert [(each.id, len(each.images)) for each in joined] == [("1", 0), ("2+4", 1), ("3", 0), ("5+6", 2)]
    assert joined[3].images_of_turns == (2,)


def test_every_picture_of_a_sample_is_looked_for(tmp_path):
    for name in "ab":
        Image.new("RGB", (3, 3)).save(tmp_path / f"{name}.png")
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    array = numpy.zeros((2, 2, 3), numpy.uint8)
    items = [sample("1"), sample("2", first, second, array), sample("3", second)]
    assert [picture.key for picture in distinct_pictures(items)] == [str(first), str(second), "2 picture 3"]
    assert len({image_key(item) for item in items}) == 3
    assert set(image_bytes(items)) == {str(first), str(second), "2 picture 3"}
    before = items_fingerprint(items)
    Image.new("RGB", (40, 40)).save(second)
    assert items_fingerprint(items) != before
    second.unlink()
    with pytest.raises(BadInputError, match=r"1 of 3 images are missing: .*b\.png"):
        image_bytes(items)


def test_a_picture_that_the_model_does_not_take_is_found_with_all_other_mistakes(tmp_path):
    class NoneWide(Processor):
        def check_picture(self, source, where=""):
            if upright_size(source, where)[0] > 4:
                raise BadInputError("too wide", where=where)

    small = small_processor()
    processor = NoneWide(small.tokenizer, 24, (0.5,) * 3, (0.5,) * 3)
    for name, width in (("a", 4), ("b", 5), ("c", 6)):
        Image.new("RGB", (width, 2)).save(tmp_path / f"{name}.png")
    (tmp_path / "d.png").write_bytes(b"no picture")
    pictures = distinct_pictures([sample(name, tmp_path / f"{name}.png") for name in "abcd"])
    mistakes = mistakes_in_pictures(pictures, processor, False, lambda done, total: None)
    assert [mistake.what[:18] for mistake in mistakes] == ["too wide", "too wide", "this is not an ima"]
    assert mistakes[0].where == "b.json"
