"""What is packed is what comes out again; what is counted over arrays is what is counted over objects."""

import os
from dataclasses import fields, replace
from pathlib import Path

import numpy
import pytest
from PIL import Image

from data_modules.base import items_fingerprint
from data_modules.index.array_file import open_arrays, write_arrays
from data_modules.index.encoded_texts import EncodedTexts
from data_modules.index.kept import found, found_or_made, prune
from data_modules.index.picture_check import table_fingerprint
from data_modules.index.sample_layouts import SampleLayouts
from data_modules.index.sample_table import SampleTable
from data_modules.sample_rows import layouts_of_samples, rows_of_samples
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID
from lightning_m2pt.inputs.encoded_picture import PictureBytes
from lightning_m2pt.inputs.picture_layout import PictureLayout, RunRows
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.inputs.stored_image import StoredImage
from lightning_m2pt.inputs.templates import PLAIN
from lightning_m2pt.testing.small_processor import small_processor

ARRAY = numpy.zeros((2, 3, 3), numpy.uint8)
RUNS = RunRows(16, 3)


def samples_of_every_kind(folder: Path) -> list[Sample]:
    for number in range(3):
        Image.new("RGB", (3 + number, 2)).save(folder / f"{number}.png")
    first, second, third = (folder / f"{number}.png" for number in range(3))
    stored = [StoredImage(folder / "a.parquet", "image", 0, row, 40 + row) for row in range(2)]
    turns = (Turn("what ?", "é \ud800 red"), Turn("", "blue"))
    return [
        Sample("none", None, "", turns, ("a", "b"), "file: record 1"),
        Sample("one", first, "0.png", turns[:1], ("b",), "file: record 2"),
        Sample("several", second, "1.png", turns, ("c", "a"), "file:3", further_images=(first, stored[0])),
        Sample("examples", third, "2.png", turns, (), "", earlier_images=(first,)),
        Sample("stored", stored[1], "p", turns, ("a", "a"), "s", system="Be brief.", shown_in_turns=(0, 1)),
        Sample("text", PictureBytes(b"abc"), "t", turns, ("d",), "s"),
    ]


def test_a_table_holds_every_part_of_a_sample(tmp_path):
    samples = samples_of_every_kind(tmp_path)
    table = SampleTable.packed(samples[:4], samples[4:])
    assert list(table) == samples
    assert table[-1] == samples[-1]
    assert table[1:3] == samples[1:3]
    assert (list(table.part(validation=False)), list(table.part(validation=True))) == (samples[:4], samples[4:])
    assert table.part(validation=True)[-1] == samples[-1]
    with pytest.raises(IndexError):
        table.part(validation=False)[4]
    assert table.tasks_of(table.part(validation=False)) == ["a", "b", "c"]
    for field in fields(Sample):  # a part that the table does not know would be lost in silence
        assert len({repr(getattr(sample, field.name)) for sample in samples}) > 1, field.name


def test_a_table_says_of_its_pictures_what_its_samples_say(tmp_path):
    samples = [sample for sample in samples_of_every_kind(tmp_path) if sample.id != "examples"]
    samples += [replace(samples[1], id="array", image=ARRAY), replace(samples[1], id="again", further_images=(ARRAY,))]
    table = SampleTable.packed(samples, [])
    states = table.pictures.states()
    assert states.missing == []
    assert table_fingerprint(table, states) == items_fingerprint(samples)
    assert [table.first_of_pictures[number] for number in table.picture_numbers[:4]] == [1, 2, 1, 2]
    changed = replace(samples[4], system="Be long.")
    assert items_fingerprint([changed]) != items_fingerprint([samples[4]])
    other = SampleTable.packed([changed], [])
    assert table_fingerprint(other, other.pictures.states()) == items_fingerprint([changed])


class BySize(Processor):
    """A wide picture has more runs of rows."""

    def layouts(self, sources, where=""):
        widths = [Image.open(source).width for source in sources]
        return [
            PictureLayout(numpy.array([7] + [IMAGE_TOKEN_ID] * width, numpy.int32), tuple(range(width)), width)
            for width in widths
        ]


@pytest.mark.parametrize("kind", [Processor, BySize])
def test_rows_and_tiles_over_arrays_are_those_of_samples(tmp_path, kind):
    samples = [replace(sample, turns=(Turn("what ?", "red"),)) for sample in samples_of_every_kind(tmp_path)[:2]]
    files = [tmp_path / f"{number}.png" for number in range(3)]
    samples += [replace(samples[1], id=f"{n}", image=files[n], further_images=tuple(files[:n])) for n in range(3)]
    processor = kind(small_processor().tokenizer, 24, (0.5,) * 3, (0.5,) * 3)
    table = SampleTable.packed(samples[:3], samples[3:])
    expected = processor.encode_all(samples, PLAIN)
    texts = EncodedTexts.packed(processor.encode_each(table, PLAIN))
    assert [text.input_ids.tolist() for text in texts] == [text.input_ids.tolist() for text in expected]
    assert texts.supervised_tokens.tolist() == [text.supervised_tokens for text in expected]
    of_samples = layouts_of_samples(samples, processor)
    made = SampleLayouts.made(table, processor)
    path = tmp_path / "layouts.safetensors"
    write_arrays(path, made.arrays(), {})
    for layouts in (made, SampleLayouts.of(open_arrays(path).arrays)):
        assert layouts.rows(texts.part(0, 5), RUNS).tolist() == rows_of_samples(expected, of_samples, RUNS).tolist()
        assert layouts.tiles.tolist() == [sum(layout.tiles for layout in each) for each in of_samples]
        assert layouts.pictures.tolist() == [len(each) for each in of_samples]
        some = layouts.part(table.part(validation=True)).rows(texts.part(3, 5), RUNS)
        assert some.tolist() == rows_of_samples(expected[3:], of_samples[3:], RUNS).tolist()


def test_arrays_come_back_as_they_were_and_safetensors_reads_them(tmp_path):
    from safetensors.numpy import load_file

    arrays = {
        "a": numpy.arange(6, dtype=numpy.int32).reshape(2, 3),
        "b": numpy.array([], numpy.int64),
        "c": numpy.array([1, 2, 3], numpy.uint8),
        "d": numpy.array([-(2**62), 5], numpy.int64),
        "e": numpy.array([-1], numpy.int8),
    }
    path = tmp_path / "x.safetensors"
    write_arrays(path, arrays, {"said": "so"})
    opened = open_arrays(path)
    assert opened.notes["said"] == "so"
    for name, values in arrays.items():
        assert opened.arrays[name].dtype == values.dtype
        assert numpy.array_equal(opened.arrays[name], values)
        assert numpy.array_equal(load_file(path)[name], values)
        assert not opened.arrays[name].flags.writeable
        assert opened.arrays[name].ctypes.data % values.itemsize == 0
    for content in (b"", b"\0" * 8, b"\xff" * 40, path.read_bytes() + b"x", path.read_bytes()[:-1]):
        path.write_bytes(content)
        assert open_arrays(path) is None


def test_what_was_not_used_for_long_is_removed_first(tmp_path, monkeypatch):
    def make():
        return {"values": numpy.zeros(100, numpy.int64)}, {}

    old, older, new, newest = (f"texts-{digit * 40}" for digit in "0123")
    for name, time in ((old, 20), (older, 10), (new, 30)):
        found_or_made(tmp_path, name, make)
        os.utime(tmp_path / f"{name}.safetensors", (time, time))
    size = (tmp_path / f"{old}.safetensors").stat().st_size
    foreign = tmp_path / "model-00001-of-00002.safetensors"
    foreign.write_bytes(b"x" * 10 * size)
    os.utime(foreign, (1, 1))
    assert found(tmp_path, older) is not None  # used just now
    prune(tmp_path, 2 * size)
    assert sorted(path.stem for path in tmp_path.iterdir()) == [foreign.stem, older, new]
    monkeypatch.setattr("data_modules.index.kept.LARGEST_TOGETHER", 2 * size)
    found_or_made(tmp_path, newest, make)
    assert sorted(path.stem for path in tmp_path.iterdir()) == [foreign.stem, older, newest]
