"""`m2pt data check`: mistakes with their places, numbers, lengths, what is there twice and what is shared."""

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy
import pytest
from PIL import Image

from data_modules.base import PictureOfItem, distinct_pictures
from data_modules.pope import POPE
from data_modules.vision_flan import ANNOTATION_FILE, IMAGE_FOLDER, VisionFlan
from experiments.datasets.check_report import LISTED
from experiments.datasets.overlap import names_in, pictures_in, plain_name
from experiments.datasets.picture_looks import Looks, looks_of
from experiments.datasets.set_check import SetCheck, overlap_with, too_long
from experiments.datasets.set_facts import counted, facts_of, lengths, records_twice, unknown_words
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inputs.encoded_text import EncodedText
from lightning_m2pt.inputs.picture_layout import RunRows
from lightning_m2pt.inputs.samples import Question, Sample, Turn
from lightning_m2pt.main import main
from lightning_m2pt.testing.small_processor import small_processor
from tests.datasets.test_near_pictures import brighter, encoded_again, halved, invented
from tests.support.small_experiment import small_words


def check(capfd: pytest.CaptureFixture, *words: object) -> tuple[int, str, str]:
    code = main(["data", "check", *map(str, words)])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def checked(capfd: pytest.CaptureFixture, *words: object) -> dict:
    """The JSON object of a check that found nothing wrong; people's lines are on standard error."""
    code, out, _ = check(capfd, *words, "--format", "json")
    assert code == ExitCode.DONE
    return json.loads(out)


def write_tuning_set(root: Path, pictures: dict[str, bytes]) -> None:
    """A record a picture, in Vision-Flan's form."""
    (root / IMAGE_FOLDER).mkdir(parents=True)
    records = []
    for name, content in pictures.items():
        (root / IMAGE_FOLDER / name).write_bytes(content)
        turns = [{"from": "human", "value": f"<image>\nWhat is {name}?"}, {"from": "gpt", "value": "A field."}]
        records.append({"id": name, "image": name, "task_name": "fields", "conversations": turns})
    (root / ANNOTATION_FILE).write_text(json.dumps(records))


def write_pope(root: Path, pictures: dict[str, bytes]) -> None:
    (root / "images").mkdir(parents=True)
    lines = []
    for number, (name, content) in enumerate(pictures.items(), start=1):
        (root / "images" / name).write_bytes(content)
        lines.append(json.dumps({"question_id": number, "image": name, "text": "Is it there?", "label": "yes"}))
    (root / "coco_pope_random.json").write_text("\n".join(lines))


def encoded(image: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    file = BytesIO()
    image.save(file, format=kind, **how)
    return file.getvalue()


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """An experiment whose tuning set has pictures of an evaluation set, stored in every way, and pictures twice."""
    fields = [invented(seed) for seed in range(8)]
    photograph = encoded(fields[4], "JPEG", quality=92)
    shared = {
        "taken.png": encoded(fields[0]),
        "000000000007.png": encoded(fields[1], compress_level=1),
        "quality60.jpg": encoded(encoded_again(fields[2]), "PNG"),
        "half.png": encoded(halved(fields[3])),
        "bright.png": encoded(brighter(Image.open(BytesIO(photograph)))),
    }
    own = {"own_field.png": encoded(fields[5]), "again.png": encoded(fields[5])}
    own |= {"half_of_own.png": encoded(halved(fields[5])), "late.png": encoded(fields[7])}
    own |= {"half_of_late.png": encoded(halved(fields[7]))}
    write_tuning_set(tmp_path / "tuning", {**shared, **own})
    theirs = {
        "a.png": encoded(fields[0]),
        "COCO_val2014_000000000007.png": encoded(fields[1], compress_level=9),
        "c.png": encoded(fields[2]),
        "d.png": encoded(fields[3]),
        "e.jpg": photograph,
        "own_field.png": encoded(fields[6]),
    }
    write_pope(tmp_path / "sets" / "pope", theirs)
    (tmp_path / "sets" / "vsr").mkdir()
    changed = {"--data.root": tmp_path / "tuning", "--sets": tmp_path / "sets"}
    return [*small_words(tmp_path, batch_size=1), *[str(word) for pair in changed.items() for word in pair]]


def test_pictures_of_evaluation_sets_are_found_however_they_are_stored(
    capfd: pytest.CaptureFixture, tmp_path: Path, words: list[str]
) -> None:
    found = checked(capfd, *words)
    pope, vsr = found["overlaps"][1], found["overlaps"][0]
    assert (pope["set"], pope["its_pictures"], pope["our_samples"], pope["problem"]) == ("pope", 6, 5, "")
    assert {key: pope["pictures"][key] for key in ("number", "content", "pixels", "near")} == {
        "number": 5,
        "content": 1,
        "pixels": 1,
        "near": 3,
    }
    pairs = {Path(each["ours"]).name: Path(each["theirs"]).name for each in pope["pictures"]["first"]}
    assert pairs == {
        "taken.png": "a.png",
        "000000000007.png": "COCO_val2014_000000000007.png",
        "quality60.jpg": "c.png",
        "half.png": "d.png",
        "bright.png": "e.jpg",
    }
    assert pope["names"] == {"number": 2, "first": ["000000000007.png", "own_field.png"]}
    assert vsr["set"] == "vsr"
    assert "test.jsonl" in vsr["problem"] or "does not exist" in vsr["problem"]
    twice = found["pictures_twice"]
    found_twice = [(Path(each["ours"]).name, Path(each["theirs"]).name, each["way"]) for each in twice["first"]]
    assert found_twice == [
        ("again.png", "own_field.png", "content"),
        ("half_of_own.png", "own_field.png", "near"),
        ("half_of_late.png", "late.png", "near"),
    ]
    exact = checked(capfd, *words, "--overlap", "exact")["overlaps"][1]["pictures"]
    assert (exact["number"], exact["content"]) == (1, 1)
    assert checked(capfd, *words, "--overlap", "none")["overlaps"] == []


def test_people_read_the_same_in_lines_and_tables(capfd: pytest.CaptureFixture, words: list[str]) -> None:
    code, out, _ = check(capfd, *words)
    assert code == ExitCode.DONE
    assert "10 samples to train on, 10 turns, 1 tasks, 10 pictures" in out
    assert "is in pope" in out
    assert "vsr in " in out
    assert "3 pictures are there before under another name: 1 of equal content, 2 nearly equal" in out
    assert out.rstrip().endswith("ok  VisionFlan")


def test_lengths_are_those_of_the_model(capfd: pytest.CaptureFixture, words: list[str]) -> None:
    found = {each["of"]: each for each in checked(capfd, *words, "--overlap", "none")["lengths"]}
    tokens, rows, pictures = found["tokens of text"], found["rows in all"], found["rows of pictures"]
    assert (tokens["limit"], tokens["limit_of"], tokens["above"]) == (160, "max_text_length", 0)
    assert pictures["least"] == pictures["most"] == 36 + 10  # the tower's patches, and the visual prompts beside them
    assert rows["most"] == tokens["most"] + pictures["most"] - 1
    assert rows["limit"] == 512 - 10
    assert found["of them supervised"]["least"] > 0


def test_all_mistakes_are_told_and_nothing_else(capfd: pytest.CaptureFixture, tmp_path: Path, words: list[str]) -> None:
    file = tmp_path / "tuning" / ANNOTATION_FILE
    records = json.loads(file.read_text())
    for number in (1, 4):
        records[number]["conversations"][1]["value"] = ""
    records[6]["image"] = "../outside.png"
    file.write_text(json.dumps(records))
    half = tmp_path / "tuning" / IMAGE_FOLDER / "own_field.png"
    half.write_bytes(half.read_bytes()[:3000])
    code, out, _ = check(capfd, *words)
    assert code == ExitCode.BAD_INPUT
    assert all(f"{ANNOTATION_FILE}: record {number}" in out for number in (2, 5, 7))
    assert "2 of this kind; expected: an answer" in out
    assert "own_field.png" in out
    assert "bad VisionFlan: 4 mistakes" in out
    assert "without what is wrong" not in out  # this set leaves nothing out
    assert "ok " not in out
    code, out, _ = check(capfd, *words, "--format", "json")
    assert code == ExitCode.BAD_INPUT
    told = json.loads(out)
    assert [kind["number"] for kind in told["mistakes"]] == [2, 1, 1]
    assert all(len(kind["first"]) <= LISTED for kind in told["mistakes"])


def test_records_that_say_the_same_are_told(capfd: pytest.CaptureFixture, tmp_path: Path, words: list[str]) -> None:
    file = tmp_path / "tuning" / ANNOTATION_FILE
    records = json.loads(file.read_text())
    file.write_text(json.dumps([*records, {**records[2], "id": "other"}]))
    found = checked(capfd, *words, "--overlap", "none")
    assert found["records_twice"] == {"number": 1, "first": [[f"{file}: record 11", f"{file}: record 3"]]}


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--overlap", "some"], ["--overlap", "near"]),
        (["--format", "yaml"], ["--format"]),
        (["--data.bogus", "1"], ["data.bogus"]),
        (["--config", "/no/such.yaml"], ["/no/such.yaml"]),
    ],
    ids=" ".join,
)
def test_wrong_words_end_in_three_lines(capfd: pytest.CaptureFixture, flags: list[str], named: list[str]) -> None:
    code, out, err = check(capfd, *flags)
    assert code == ExitCode.BAD_INPUT
    assert not out
    assert len(err.splitlines()) <= 3
    assert all(text in err for text in named), err


def test_a_percentile_is_a_length_that_there_is() -> None:
    found = lengths("rows", numpy.array([1, 2, 30, 40]), limit=30, limit_of="positions")
    assert (found.spread, found.above) == ((1, 30, 40, 40, 40), 1)


def test_names_are_compared_without_folder_ending_and_what_coco_adds() -> None:
    assert plain_name("coco/train2017/000000310196.jpg") == plain_name("COCO_val2014_000000310196.jpg")
    assert plain_name("COCO_val2014_12.jpg") == "coco_val2014_12"
    assert plain_name("a/B.PNG") == "b"
    ours, theirs = (
        Sample("1", None, names, (), (), "here") for names in ("1/a.png\n2/0042.png\n3/a_tree.png", "A_Tree.jpg")
    )
    assert names_in([ours], [theirs]) == ["3/a_tree.png"]
    assert names_in([ours], [replace(theirs, image_id="0042.jpg")]) == []  # of few letters, which say nothing


def test_a_picture_is_the_first_of_equal_ones_and_two_of_one_record_are_two(tmp_path: Path) -> None:
    names = {"a.png": invented(1), "b.png": invented(2), "c.png": invented(1), "half.png": halved(invented(2))}
    for name, image in names.items():
        (tmp_path / name).write_bytes(encoded(image))

    def looks(*names: str) -> Looks:
        return looks_of([PictureOfItem(name, tmp_path / name, "one record") for name in names], with_sketches=True)

    found = pictures_in(looks("c.png", "half.png"), looks("a.png", "b.png", "c.png"))
    assert [(each.ours.key, each.theirs.key, each.way) for each in found] == [
        ("c.png", "a.png", "content"),
        ("half.png", "b.png", "near"),
    ]


def test_samples_and_pictures_that_are_shared_are_counted_each_by_itself(tmp_path: Path) -> None:
    write_pope(tmp_path, {"a.png": encoded(invented(1)), "b.png": b"no picture"})
    (tmp_path / "own.png").write_bytes(encoded(invented(2)))
    pictures = [tmp_path / "images" / "a.png", tmp_path / "images" / "a.png", tmp_path / "own.png"]
    ours = [Sample(str(number), path, path.name, (), (), "here") for number, path in enumerate(pictures)]
    looks = looks_of(distinct_pictures(ours), with_sketches=True)
    found = overlap_with(POPE(str(tmp_path), "plain"), ours, looks, SetCheck("ours", "here"))
    assert (found.pictures, len(found.found), found.samples, found.problem) == (2, 1, 2, "")


def test_what_stands_there_twice_says_all_the_same() -> None:
    picture, other, turns = Path("a.png"), Path("b.png"), (Turn("What?", "That."), Turn("And?", "This."))
    one = Sample("1", picture, "a", turns, ("t", "u"), "line 1")
    same = replace(one, id="2", source="line 2")
    different = [
        replace(one, id="3", system="Be brief."),
        replace(one, id="4", turns=turns[:1], tasks=("t",)),
        replace(one, id="5", further_images=(other,)),
        replace(one, id="6", image=None),
    ]
    assert records_twice([one, same, *different]) == [(same, one)]
    asked = Question("1", "easy", "What?", "That", picture, "a", "line 1")
    assert records_twice([asked, replace(asked, id="2", subtask="hard"), replace(asked, id="3", target="x")]) == []
    assert records_twice([asked, replace(asked, id="2")]) == [(replace(asked, id="2"), asked)]
    assert counted([one, same, *different]) == {
        "turns": 11,
        "tasks": 2,
        "pictures": 2,
        "samples without a picture": 1,
        "samples with several pictures": 1,
    }


def test_questions_leave_room_for_their_answers(tmp_path: Path) -> None:
    write_pope(tmp_path, {"a.png": encoded(invented(1))})
    data = POPE(str(tmp_path), "plain", max_new_tokens=7)
    data.connect(small_processor(8))
    rows = facts_of(data, RunRows(5), 100).lengths[-1]
    assert (rows.of, rows.limit) == ("rows in all", 93)
    longest = rows.spread[-1]
    assert too_long(data, RunRows(5), longest + 7) == ()
    (mistake,) = too_long(data, RunRows(5), longest + 6)
    assert str(longest) in mistake.what


def test_a_picture_that_cannot_be_read_is_counted_and_left_out(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(encoded(invented(1)))
    bad.write_bytes(b"no picture")
    looks = looks_of([PictureOfItem(str(path), path, "here") for path in (bad, good)], with_sketches=True)
    assert (looks.unread, looks.flat(), [each.image for each in looks.pictures]) == (1, 0, [good])


def test_words_that_the_tokenizer_does_not_know_are_counted() -> None:
    data = VisionFlan("tuning", template="vicuna_v1", batch_size=1)
    data.connect(small_processor(8))
    unknown, known = data.processor.tokenizer.unk_token_id, data.processor.tokenizer.bos_token_id
    question, answer = int(Span.QUESTION), int(Span.ANSWER)
    texts = [
        EncodedText(numpy.array([known, unknown, unknown]), numpy.array([question, question, answer])),
        EncodedText(numpy.array([known, unknown, known]), numpy.array([question, question, answer])),
        EncodedText(numpy.array([known, known, known]), numpy.array([question, question, answer])),
    ]
    assert list(unknown_words(data, texts).values()) == [2, 1]
    data.processor.tokenizer.eos_token = "<unk>"
    assert unknown_words(data, texts) == {}
