"""Tar shards in the form of WebDataset: rows as the library reads them, and pictures at places of their own."""

import io
import json
import tarfile
from pathlib import Path

import numpy
import pytest
from PIL import Image

from data_modules.index.sample_table import SampleTable
from data_modules.reading.picture_cells import PictureCells
from data_modules.reading.rows import rows_of
from data_modules.reading.sources import source_of
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.images import open_image
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.inputs.tar_picture import TarPicture

TALK = [{"from": "human", "value": "<image>\nwhat ?"}, {"from": "gpt", "value": "red"}]


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(numpy.full((2, 3 + number, 3), number * 20, numpy.uint8)).save(file, "PNG")
    return file.getvalue()


def shard(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def talk(**more: object) -> bytes:
    return json.dumps({"conversations": TALK, **more}).encode()


def files_of(first: int) -> dict[str, bytes]:
    return {
        "__index__": b"about the shard",
        f"a/{first:03d}.jpg": png(first),
        f"a/{first:03d}.json": talk(task_name="t"),
        f"a/{first:03d}.npy": b"\x93NUMPY",
        f"a/{first + 1:03d}.0.png": png(first + 1),
        f"a/{first + 1:03d}.1.PNG": png(first + 2),
        f"a/{first + 1:03d}.txt": "é\r\nred ".encode(),
    }


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for number in range(2):
        shard(tmp_path / "shards" / f"train-{number:06d}.tar", files_of(3 * number))
    return tmp_path / "shards"


def rows(folder: Path, **options: str) -> list:
    return list(rows_of(source_of(str(folder), **options)))


def test_files_of_one_name_are_a_row(shards):
    found = rows(shards)
    assert [Path(where).name for where, _ in found] == ["000", "001", "003", "004"]
    assert [row["id"] for _, row in found] == ["a/000", "a/001", "a/003", "a/004"]
    assert found[0][1]["conversations"] == TALK
    assert found[0][1]["task_name"] == "t"
    assert found[1][1]["text"] == "é\nred"
    several = found[3][1]["image"]
    assert [each.member for each in several] == ["a/004.0.png", "a/004.1.PNG"]
    assert [each.read() for each in several] == [png(4), png(5)]
    assert open_image(several[1]).size == (8, 2)
    assert rows(shards / "train-000001.tar") == found[2:]
    assert rows(shards, split="train") == found
    with pytest.raises(BadInputError, match="no shard's name begins with 'test'"):
        rows(shards, split="test")


def test_rows_are_those_that_the_library_reads(shards):
    webdataset = pytest.importorskip("webdataset")
    ours = rows(shards)
    paths = [str(path) for path in sorted(shards.glob("*.tar"))]
    theirs = list(webdataset.WebDataset(paths, shardshuffle=False))
    assert [row["id"] for _, row in ours] == [sample["__key__"] for sample in theirs]
    for (_, row), sample in zip(ours, theirs, strict=True):
        pictures = row["image"] if isinstance(row["image"], list) else [row["image"]]
        kinds = [kind for kind in sample if kind.rpartition(".")[2] in {"jpg", "png"}]
        assert [picture.read() for picture in pictures] == [sample[kind] for kind in kinds]
        if "json" in sample:
            assert row["conversations"] == json.loads(sample["json"])["conversations"]


def test_a_picture_is_a_place_that_an_index_keeps(shards, tmp_path):
    source = source_of(str(shards))
    cells = PictureCells(source, source.folder)
    samples = []
    for where, row in rows_of(source):
        pictures = cells.pictures(row["image"], where)
        images = [picture.image for picture in pictures]
        samples.append(
            Sample(row["id"], images[0], pictures[0].name, (Turn("a", "b"),), ("t",), where, (), tuple(images[1:]))
        )
    assert samples[2].image_id == "train-000001.tar/a/003.jpg"
    table = SampleTable.packed(samples, [])
    assert list(table) == samples
    again = SampleTable.of(table.arrays(), tmp_path)
    assert list(again) == samples
    assert [image.read() for image in again[3].images] == [png(4), png(5)]
    states = again.pictures.states()
    assert states.sizes.tolist() == [len(png(number)) for number in range(6)]
    assert set(states.times.tolist()) == {path.stat().st_mtime_ns for path in shards.glob("*.tar")}


def test_a_picture_in_a_shard_that_became_shorter_is_refused(shards):
    (_, _), (_, row), *_ = rows(shards)
    path = row["image"][1].path
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(BadInputError, match="has changed"):
        row["image"][1].read()
    path.unlink()
    with pytest.raises(BadInputError, match="cannot be read: No such file"):
        open_image(row["image"][0])


@pytest.mark.parametrize("length", [700, 1500, 2048, 5000, 8000, -10240])
def test_a_shard_that_is_cut_off_is_refused(shards, length):
    path = shards / "train-000001.tar"
    whole = path.read_bytes()
    assert len(whole) == 10240
    path.write_bytes(whole[:length] if length > 0 else b"")
    with pytest.raises(BadInputError, match=r"train-000001\.tar"):
        rows(shards)


def test_a_damaged_header_inside_is_not_the_end(shards):
    path = shards / "train-000000.tar"
    content = bytearray(path.read_bytes())
    content[content.index(b"a/001.txt")] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadInputError, match="damaged or cut off at byte"):
        rows(shards)


def test_what_stands_behind_the_end_is_not_left_out(shards):
    path = next(shards.glob("*.tar"))
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(BadInputError, match="something stands behind the end of the tar file"):
        rows(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["symbolic", "hard"])
def test_a_link_is_no_row_without_a_picture(tmp_path, kind):
    path = shard(tmp_path / "x.tar", {"1.png": png(1), "2.txt": b"text"})
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("2.png")
        info.type, info.linkname = kind, "1.png"
        tar.addfile(info)
    with pytest.raises(BadInputError, match=r"2\.png is a link to 1\.png"):
        rows(path)


def test_a_compressed_shard_is_refused(tmp_path):
    path = shard(tmp_path / "x.tar", files_of(0), "w:gz")
    with pytest.raises(BadInputError, match="cannot be read") as caught:
        rows(path)
    assert "not compressed" in caught.value.expected


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"1.json": b"{"}, "not valid JSON"),
        ({"1.json": b"[1]"}, "the record is a list"),
        ({"1.txt": b"\xff"}, "not UTF-8"),
        ({"1.jpg": b"a", "1.JPG": b"b"}, "two files"),
        ({"1.5.json": b'{"text": "a"}', "1.6.json": b'{"text": "b"}'}, "the row has the files 1.5.json, 1.6.json"),
        ({"1.en.txt": b"a", "1.de.txt": b"b"}, "the row has the files 1.en.txt, 1.de.txt"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_row_stands_in_its_place(tmp_path, files, sentence):
    found = rows(shard(tmp_path / "x.tar", {**files, "2.txt": b"right"}))
    assert isinstance(found[0], BadInputError)
    assert sentence in found[0].what
    assert "x.tar: 1" in found[0].where
    assert found[1][1]["text"] == "right"


def test_a_text_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("data_modules.reading.tar_rows.LARGEST_TEXT", 8)
    (mistake,) = rows(shard(tmp_path / "x.tar", {"1.txt": b"123456789"}))
    assert "9 bytes" in mistake.what


def test_a_member_s_name_leads_nowhere(tmp_path):
    ((_, row),) = rows(shard(tmp_path / "x.tar", {"../../etc/1.jpg": png(1)}))
    assert isinstance(row["image"], TarPicture)
    assert row["image"].read() == png(1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tar"]
