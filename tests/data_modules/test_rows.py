"""Rows of every form: what they hold, where they stand, and what is refused."""

import base64
import json
import os
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import pytest

from data_modules.reading.columns import ROLES, recognised, told
from data_modules.reading.files import fake_image, write_image
from data_modules.reading.parquet_rows import PictureCell
from data_modules.reading.picture_cells import PictureCells
from data_modules.reading.rows import rows_of
from data_modules.reading.sources import source_of
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.images import check_image, open_image
from tests.support.hub_files import PICTURES, picture, png, write_parquet, write_shards

RECORDS = [{"id": 1, "question": "What, then?"}, {"id": 2, "question": "Why?\nSo."}]


def rows(path: Path | str, **options: str) -> list:
    return list(rows_of(source_of(str(path), **options)))


def cells(path: Path | str) -> PictureCells:
    source = source_of(str(path))
    return PictureCells(source, source.folder)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(RECORDS),
        json.dumps({"data": RECORDS}),
        json.dumps({"version": "1", "data": RECORDS}, indent=2),
        "\n".join(json.dumps(record) for record in RECORDS),
    ],
)
def test_json_is_a_list_a_list_in_an_object_or_lines(tmp_path: Path, text: str) -> None:
    found = rows(written(tmp_path / "a.json", text))
    assert [record for _, record in found] == RECORDS
    where = "a.json:2" if text.startswith('{"id"') else "a.json: record 2"
    assert found[1][0] == str(tmp_path / where)


def test_one_record_of_a_conversation_is_no_wrapper_of_others(tmp_path: Path) -> None:
    record = {"id": 1, "conversations": [{"from": "human", "value": "a"}]}
    assert [one for _, one in rows(written(tmp_path / "a.json", json.dumps(record)))] == [record]
    with pytest.raises(BadInputError, match="several lists: 'train', 'test'"):
        rows(written(tmp_path / "b.json", json.dumps({"train": RECORDS, "test": RECORDS})))
    with pytest.raises(BadInputError, match="holds a str"):
        rows(written(tmp_path / "c.json", '"text"'))


def test_a_broken_line_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    found = rows(written(tmp_path / "a.jsonl", '{"id": 1}\n\n{"id": 2\n[3]\n{"id": 4}\n'))
    assert [one if isinstance(one, tuple) else one.where.rpartition("/")[2] for one in found] == [
        (str(tmp_path / "a.jsonl:1"), {"id": 1}),
        "a.jsonl:3",
        "a.jsonl:4",
        (str(tmp_path / "a.jsonl:5"), {"id": 4}),
    ]
    broken = rows(written(tmp_path / "b.json", '{"id": 1,}\n{"id": 2}\n'))
    assert isinstance(broken[0], BadInputError)
    assert broken[1][1] == {"id": 2}


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("b.csv", ";"), ("c.csv", "\t"), ("d.tsv", "\t")])
def test_tables_have_lines_and_empty_cells(tmp_path: Path, name: str, mark: str) -> None:
    text = mark.join(["", "id", " question "]) + "\n" + mark.join(["0", "1", '"a ""b""\nc"']) + "\n\n"
    found = rows(written(tmp_path / name, "\ufeff" + text + mark.join(["1", "2", " "]) + "\r\n" + mark.join("xy")))
    assert found[0] == (str(tmp_path / f"{name}:2"), {"id": "1", "question": 'a "b"\nc'})
    assert found[1] == (str(tmp_path / f"{name}:5"), {"id": "2", "question": None})
    assert (found[2].where, found[2].what) == (str(tmp_path / f"{name}:6"), "the row has 2 cells")


def test_a_table_without_names_or_with_an_open_quote_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="called 'a'"):
        rows(written(tmp_path / "a.csv", "a,b,a\n1,2,3\n"))
    with pytest.raises(BadInputError, match="no name"):
        rows(written(tmp_path / "a.csv", "a,,b\n1,2,3\n"))
    assert "no row of a table" in rows(written(tmp_path / "a.csv", 'a,b\n1,"2\n3,4\n'))[0].what
    long = "x" * 200_000
    assert rows(written(tmp_path / "a.csv", f"a,b\n1,{long}\n"))[0][1]["b"] == long


def test_parquet_has_pictures_as_places_and_classes_by_name(tmp_path: Path) -> None:
    pictures = [fake_image(number, side=8) for number in (0, 1, 0, 2)]
    names = ["a.png", None, "b.png", None]
    content = [picture(pixels, name) for pixels, name in zip(pictures, names, strict=True)]
    content[3] = {"bytes": None, "path": "far.png"}
    records = [{"image": cell, "label": row % 2} for row, cell in enumerate(content)]
    path = write_parquet(tmp_path / "a.parquet", records, class_names={"label": ["cat", "dog"]})
    found = rows(path)
    assert [where for where, _ in found] == [f"{path}: row {number}" for number in (1, 2, 3, 4)]
    assert [record["label"] for _, record in found] == ["cat", "dog", "cat", "dog"]
    held = [record["image"] for _, record in found]
    assert held[3] == "far.png"
    assert held[0] is held[2]
    assert isinstance(held[0], PictureCell)
    (read,) = cells(path).pictures(held[1], "here")
    assert numpy.array_equal(numpy.asarray(open_image(read.image)), pictures[1])


def test_parquets_numbers_are_as_they_would_be_written_and_nan_is_nothing(tmp_path: Path) -> None:
    narrow = pyarrow.array([0.1, 2.5, float("nan"), None], pyarrow.float32())
    wide = pyarrow.array([0.1, 1e22, float("nan"), None])
    pyarrow.parquet.write_table(pyarrow.table({"narrow": narrow, "wide": wide}), tmp_path / "a.parquet")
    found = [row for _, row in rows(tmp_path / "a.parquet")]
    assert [row["narrow"] for row in found] == [0.1, 2.5, None, None]
    assert [row["wide"] for row in found] == [0.1, 1e22, None, None]


def test_parquet_has_lists_of_pictures(tmp_path: Path) -> None:
    pictures = [fake_image(number, side=8) for number in range(5)]
    lists = [[picture(pictures[0])], None, [], [picture(pixels) for pixels in pictures[1:]]]
    table = pyarrow.table({"images": pyarrow.array(lists, pyarrow.list_(PICTURES)), "n": [1, 2, 3, 4]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    found = [record["images"] for _, record in rows(tmp_path / "a.parquet")]
    assert [len(cell) for cell in found] == [1, 0, 0, 4]
    read = cells(tmp_path / "a.parquet").pictures(found[3], "here")
    for one, pixels in zip(read, pictures[1:], strict=True):
        check_image(one.image, "here", decode=True)
        assert numpy.array_equal(numpy.asarray(open_image(one.image)), pixels)


def test_splits_of_a_folder_are_read_one_at_a_time(tmp_path: Path) -> None:
    def few(*numbers: int) -> list[dict]:
        return [{"image": picture(fake_image(number, side=8)), "n": number} for number in numbers]

    write_shards(tmp_path / "data", "train", few(1, 2, 3))
    assert [record["n"] for _, record in rows(tmp_path)] == [1, 2, 3]
    write_parquet(tmp_path / "data" / "test.parquet", few(4))
    with pytest.raises(BadInputError, match="the splits test, train"):
        rows(tmp_path)
    assert [record["n"] for _, record in rows(tmp_path, split="test")] == [4]
    with pytest.raises(BadInputError, match="no split 'dev'"):
        rows(tmp_path, split="dev")
    for name in ("b", "a"):
        write_parquet(tmp_path / "parts" / f"{name}.parquet", few(ord(name)))
    assert [record["n"] for _, record in rows(tmp_path / "parts")] == [97, 98]


def test_a_folder_is_pictures_with_texts_or_has_one_table(tmp_path: Path) -> None:
    for name in ("b.png", "below/a.jpg", ".hidden/c.png"):
        write_image(tmp_path / name, fake_image(1, side=8))
    written(tmp_path / "b.txt", "A bee.\n")
    first, second = rows(tmp_path)
    assert first == (str(tmp_path / "b.txt"), {"image": "b.png", "caption": "A bee."})
    assert (second.what, second.where) == ("the picture has no text beside it", str(tmp_path / "below/a.jpg"))
    written(tmp_path / "metadata.csv", "file_name,text\nb.png,A bee.\n")
    written(tmp_path / "other.csv", "file_name,text\n")
    assert [record for _, record in rows(tmp_path)] == [{"file_name": "b.png", "text": "A bee."}]
    (tmp_path / "metadata.csv").rename(tmp_path / "third.csv")
    with pytest.raises(BadInputError, match=r"2 files that can be read: other.csv, third.csv"):
        rows(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match="holds nothing that can be read"):
        rows(tmp_path / "empty")


def test_a_data_set_of_the_hub_is_read_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    place, commit = tmp_path / "datasets--me--mine", "0" * 40
    snapshot = place / "snapshots" / commit
    for folder in (snapshot / "pictures", place / "blobs", place / "refs"):
        folder.mkdir(parents=True)
    written(place / "refs" / "main", commit)
    written(place / "blobs" / "1", json.dumps([{"image": "pictures/a.png"}]))
    (place / "blobs" / "2").write_bytes(png(fake_image(1, side=8)))
    os.symlink("../../blobs/1", snapshot / "train.json")
    os.symlink("../../../blobs/2", snapshot / "pictures" / "a.png")
    for words in ("hub:me/mine", "hub:me/mine/train.json"):
        source = source_of(words)
        ((where, record),) = rows_of(source)
        assert where == f"{snapshot}/train.json: record 1"
        (read,) = PictureCells(source, source.folder).pictures(record["image"], where)
        assert (read.name, read.image) == ("pictures/a.png", snapshot / "pictures/a.png")
        with pytest.raises(BadInputError, match="leads out"):
            PictureCells(source, source.folder).pictures("../../../../else.png", where)
    with pytest.raises(BadInputError, match=r"holds no test.json") as caught:
        source_of("hub:me/mine/test.json")
    assert caught.value.expected == "train.json"
    with pytest.raises(BadInputError, match="me/yours at v1 is not on this machine") as caught:
        source_of("hub:me/yours", revision="v1")
    assert caught.value.hint == "hf download --repo-type dataset me/yours --revision v1"


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "a.xlsx", "x")
    written(tmp_path / "a.csv", "a\n1\n")
    for file, options, expected in (
        ("a.xlsx", {}, "ends in none of the endings"),
        ("b.csv", {}, "does not exist"),
        ("a.csv", {"revision": "main"}, "has no revision"),
        ("a.csv", {"split": "train"}, "has no splits"),
    ):
        with pytest.raises(BadInputError, match=expected):
            source_of(str(tmp_path / file), **options)


def test_pictures_are_names_lists_or_base64_and_never_addresses(tmp_path: Path) -> None:
    content = png(fake_image(3, side=8))
    text = base64.b64encode(content).decode()
    found = cells(written(tmp_path / "a.csv", "a\n1\n"))
    assert found.pictures(None, "here") == found.pictures("", "here") == found.pictures([], "here") == []
    names = [f"{tmp_path}/b/c.png", "./b/c.png", "b/c.png", {"path": "b/c.png"}]
    assert {(one.name, one.image) for one in found.pictures(names, "here")} == {("b/c.png", tmp_path / "b/c.png")}
    assert [one.name for one in found.pictures('["a.png", "b.png"]', "here")] == ["a.png", "b.png"]
    first, second = found.pictures([text, f"data:image/png;base64,{text}"], "here")
    assert first == second
    assert first.image.read() == content
    assert numpy.array_equal(numpy.asarray(open_image(first.image)), fake_image(3, side=8))
    for wrong, expected in (
        ("https://example.org/a.png", "is an address"),
        ("../a.png", "leads out"),
        ("/etc/passwd", "leads out"),
        (7, "the picture is 7"),
        ("data:image/png;base64,%%%", "no base64"),
    ):
        with pytest.raises(BadInputError, match=expected):
            found.pictures(wrong, "here")


def test_columns_are_found_by_their_usual_names_or_mapped() -> None:
    names = ["Image", "Question", "answer", "split", "label"]
    found = recognised(names, None, "a.csv")
    assert found == {"image": "Image", "question": "Question", "answer": "answer"}
    assert told(found, names) == "columns: image = Image, question = Question, answer; not used: split, label"
    mapped = recognised([*names, "q"], {"question": "q", "answer": "label"}, "a.csv")
    assert mapped == {"image": "Image", "question": "q", "answer": "label"}
    for wrong, expected in (
        ({"picture": "Image"}, "'picture' is nothing"),
        ({"image": "picture"}, "no column 'picture' for image"),
        ({"image": "q", "question": "q"}, "mapped twice"),
    ):
        with pytest.raises(BadInputError, match=expected):
            recognised([*names, "q"], wrong, "a.csv")
    written = ["Image Path", " QUESTION ", "answer", "Task-Name"]
    assert recognised(written, None, "a.csv") == {
        "image": "Image Path",
        "question": " QUESTION ",
        "answer": "answer",
        "task": "Task-Name",
    }
    alike = ["image", "Image", "question", "answer"]
    with pytest.raises(BadInputError, match="'image' and 'Image' may both be image"):
        recognised(alike, None, "a.csv")
    assert recognised(alike, {"image": "Image"}, "a.csv")["image"] == "Image"
    assert recognised(["choices"], None, "a", {**ROLES, "options": ("choices",)}) == {"options": "choices"}
