"""All mistakes of a data set at once: in `check` a report, elsewhere three lines that name three and count the rest."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from data_modules.base import DataModule
from data_modules.benchmark import BenchmarkDataModule
from data_modules.cifar10 import CIFAR10
from data_modules.mme import MME
from data_modules.mnist import MNIST
from data_modules.pope import POPE
from data_modules.reading.restricted_pickle import python2_pickle
from data_modules.snli_ve import SNLIVE
from data_modules.text_vqa import TextVQA
from data_modules.vision_flan import VisionFlan
from data_modules.vision_flan_held_out import VisionFlanHeldOut
from data_modules.vsr import VSR
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.inputs.images import check_image
from lightning_m2pt.inputs.mistakes import SeveralMistakesError, collecting, made_of_each, mistakes_of, refuse
from lightning_m2pt.main import main
from lightning_m2pt.testing.small_processor import small_processor
from tests.support.small_experiment import small_words

ANNOTATIONS, IMAGES = "annotation_191-task_1k.json", "images_191task_1k"


def mistake(number: int) -> BadInputError:
    return BadInputError(f"mistake {number}", where=f"place {number}", expected="none", hint="mend it")


def odd(number: int) -> int:
    if number % 2 == 0:
        raise mistake(number)
    return 10 * number


def test_one_is_raised_as_it_is_and_several_together() -> None:
    refuse([])
    assert made_of_each([1, 3], odd) == [10, 30]
    only = mistake(1)
    with pytest.raises(BadInputError) as caught:
        refuse([only])
    assert caught.value is only
    with pytest.raises(SeveralMistakesError) as several:
        made_of_each([*range(12), mistake(99)], odd)
    assert [str(each.where) for each in several.value.mistakes] == [f"place {n}" for n in (0, 2, 4, 6, 8, 10, 99)]
    assert several.value.message() == (
        "error: place 0: mistake 0; also place 2: mistake 2; place 4: mistake 4; and 4 more\n"
        "  expected: none\n  hint: mend it"
    )
    copied = pickle.loads(pickle.dumps(several.value))  # as from a loader's worker
    assert [each.what for each in mistakes_of(copied)] == [each.what for each in several.value.mistakes]
    assert mistakes_of(only) == (only,)


def test_where_somebody_collects_nothing_is_raised_and_reading_goes_on() -> None:
    with collecting() as found:
        assert made_of_each(range(4), odd) == [10, 30]
        refuse([mistake(7)])
        with collecting() as inner:
            refuse([mistake(8)])
    assert [each.where for each in found] == ["place 0", "place 2", "place 7"]
    assert [each.where for each in inner] == ["place 8"]
    with pytest.raises(BadInputError):
        refuse([mistake(9)])


def change_records(root: Path, change: Callable[[list], object], name: str = ANNOTATIONS) -> None:
    records = json.loads((root / name).read_text())
    change(records)
    (root / name).write_text(json.dumps(records))


def change_lines(path: Path, changes: dict[int, str]) -> None:
    lines = path.read_text().splitlines()
    for number, line in changes.items():
        lines[number - 1] = line
    path.write_text("\n".join(lines))


def changed(line: str, **values: object) -> str:
    return json.dumps(json.loads(line) | values)


def found_in(module: DataModule) -> list[str]:
    module.connect(small_processor(8))
    with pytest.raises(BadInputError) as caught:
        module.check()
    assert len(caught.value.message().split("\n")) <= 3
    return [each.message().split("\n")[0] for each in mistakes_of(caught.value)]


def test_every_mistake_of_a_tuning_set_is_found(tmp_path: Path) -> None:
    VisionFlan.write_fake(tmp_path)

    def spoil(records: list) -> None:
        records[2]["conversations"][1]["value"] = ""
        records[4]["image"] = "../out.png"
        records[5] = 3
        records[8]["image"] = "https://example.org/8.png"
        records[9]["conversations"][0]["value"] = "<image>\n<image>\nTwo marks?"
        for record in records[14:]:
            record["conversations"][1]["value"] = "yes " * 3_000

    change_records(tmp_path, spoil)
    (tmp_path / IMAGES / "fake_3.png").unlink()
    (tmp_path / IMAGES / "fake_5.png").write_bytes((tmp_path / IMAGES / "fake_5.png").read_bytes()[:-50])
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / IMAGES / "fake_6.png").unlink()
    (tmp_path / "pipe").rename(tmp_path / IMAGES / "fake_6.png")
    found = found_in(VisionFlan(str(tmp_path), "plain", batch_size=4, order_seed=1))
    for expected in (
        *("record 3: conversations: the answer", "record 5: image: the image name", "record 6: the record is a int"),
        *("record 9: image: ", "record 10: ", "images are missing"),
        *(
            "fake_5.png: the image is damaged",
            "fake_6.png: this is no regular file",
            "record 15: sample ",
            "record 16: sample ",
        ),
    ):
        assert len([line for line in found if expected in line]) == 1, expected
    assert len(found) == 10


def test_a_module_that_was_found_wrong_reads_again(tmp_path: Path) -> None:
    """What `check` read without the wrong records is never trained on."""
    VisionFlan.write_fake(tmp_path)
    right = (tmp_path / ANNOTATIONS).read_text()
    change_records(tmp_path, lambda records: records[0].pop("image"))
    module = VisionFlan(str(tmp_path), "plain", batch_size=4, order_seed=1)
    assert len(found_in(module)) == 1
    with pytest.raises(BadInputError):
        module.setup("fit")
    (tmp_path / ANNOTATIONS).write_text(right)
    module.check()
    assert len(module.items()) == 16
    VSR.write_fake(tmp_path / "vsr")
    held = VSR(str(tmp_path / "vsr"), "plain")
    whole = (tmp_path / "vsr" / "test.jsonl").read_text()
    change_lines(tmp_path / "vsr" / "test.jsonl", {2: "{}"})
    assert len(found_in(held)) == 1
    (tmp_path / "vsr" / "test.jsonl").write_text(whole)
    assert len(held.questions()) == 6


def spoil_lines(name: str, **values: object) -> Callable[[Path], object]:
    """Returns what cuts line 2 of a file off, and changes a value in line 4."""

    def spoil(root: Path) -> None:
        lines = (root / name).read_text().splitlines()
        change_lines(root / name, {2: "{", 4: changed(lines[3], **values)})

    return spoil


def spoil_mme(root: Path) -> None:
    (root / "count" / "fake_0.txt").write_text("One?\tYes\n")
    (root / "existence" / "fake_1.txt").write_text("One?\tYes\nTwo?\tperhaps\n")
    (root / "existence" / "fake_0.txt").unlink()  # its picture is left
    Image.open(root / "count" / "fake_1.png").save(root / "count" / "fake_1.jpg")
    (root / "color").mkdir()


def spoil_mnist(root: Path) -> None:
    path = root / "t10k-labels-idx1-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] = content[-3] = 77
    path.write_bytes(content)


def spoil_text_vqa(root: Path) -> None:
    path = root / "TextVQA_0.5.1_val.json"
    content = json.loads(path.read_text())
    content["data"][1] = 3
    content["data"][3]["answers"] = []
    path.write_text(json.dumps(content))


SPOILED: list[tuple[type[BenchmarkDataModule], Callable[[Path], object], list[str]]] = [
    (VSR, spoil_lines("test.jsonl", label=7), ["test.jsonl:2: this is not", "test.jsonl:4: label: the value is 7"]),
    (POPE, spoil_lines("coco_pope_popular.json", label="x"), ["popular.json:2: this is not", "json:4: label"]),
    (SNLIVE, spoil_lines("snli_ve_test.jsonl", gold_label="x"), ["jsonl:2: this is not", "jsonl:4: gold_label"]),
    (TextVQA, spoil_text_vqa, ["record 2: the record is a int", "record 4: answers: there are 0"]),
    (MNIST, spoil_mnist, ["record 4: the label is 77", "record 6: the label is 77"]),
    (
        MME,
        spoil_mme,
        [
            *("fake_0.txt: the image 'fake_0' has 1", "fake_1.txt:2: the line is", "color: the subtask has no text"),
            *("fake_0.png: nothing is asked about", "count: the picture is there twice: fake_1.jpg, fake_1.png"),
        ],
    ),
    (
        VSR,
        spoil_lines("test.jsonl", caption="Where is <image>?"),
        ["test.jsonl:2: this is not", "test.jsonl:4: <image> stands in the question"],
    ),
]


@pytest.mark.parametrize(("benchmark", "spoil", "expected"), SPOILED, ids=lambda value: getattr(value, "__name__", ""))
def test_every_mistake_of_an_evaluation_set_is_found(
    tmp_path: Path, benchmark: type, spoil: Callable[[Path], object], expected: list[str]
) -> None:
    benchmark.write_fake(tmp_path)
    spoil(tmp_path)
    found = found_in(benchmark(str(tmp_path), "plain"))
    for each in expected:
        assert len([line for line in found if each in line]) == 1, (each, found)
    assert len(found) == len(expected)


def test_questions_that_cannot_be_asked_are_refused_wherever_they_are_read(tmp_path: Path) -> None:
    VisionFlan.write_fake(tmp_path / "flan")
    TextVQA.write_fake(tmp_path / "text")
    path = tmp_path / "text" / "TextVQA_0.5.1_val.json"
    path.write_text(path.read_text().replace("word 3", "<image>"))
    with pytest.raises(BadInputError, match=r"record 4: <image> stands in the question or its answer"):
        TextVQA(str(tmp_path / "text"), "plain").questions()
    change_records(tmp_path / "flan", lambda records: records[3]["conversations"][0].update(value="<image>\n"))
    held_out = VisionFlanHeldOut(str(tmp_path / "flan"), "plain", validation_fraction=0.99)
    with pytest.raises(BadInputError, match="record 4: the question is empty"):
        held_out.questions()
    CIFAR10.write_fake(tmp_path / "cifar")
    with pytest.raises(BadInputError, match="<image> stands in the question"):
        CIFAR10(str(tmp_path / "cifar"), "plain", question="What is in <image>?").questions()


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "webp", "bmp", "tiff", "ppm"])
def test_whole_pictures_pass_and_halves_do_not(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"picture.{ending}"
    Image.effect_noise((40, 30), 90).convert("RGB").save(path)
    check_image(path)
    check_image(path, decode=True)
    content = path.read_bytes()
    if ending in {"png", "jpg", "gif"}:
        path.write_bytes(content + b"\0" * 20)  # some writers fill up a block
        check_image(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInputError, match=r"record 1: .*(damaged|not an image)"):
        check_image(path, "record 1")


@pytest.mark.parametrize("size", [(1, 1), (20_000, 2), (2, 20_000)])
def test_pictures_of_any_form_are_read(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(tmp_path / "a.png")
    check_image(tmp_path / "a.png", decode=True)
    assert small_processor(8).image(tmp_path / "a.png").shape == (3, 8, 8)


def check(capfd: pytest.CaptureFixture, *words: str) -> tuple[int, str, str]:
    code = main(["check", *words])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def test_the_command_lists_ten_of_a_kind_and_counts_the_rest(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    words = small_words(tmp_path)
    root = tmp_path / "vision_flan"

    def spoil(records: list) -> None:
        for record in records[:13]:
            record["conversations"][1]["value"] = ""
        records[14]["image"] = "\x1b[2J/../x"

    change_records(root, spoil)
    code, shown, error = check(capfd, *words)
    assert (code, error) == (ExitCode.BAD_INPUT, "")
    lines = shown.splitlines()
    assert any("13 of this kind; expected: an answer" in line for line in lines)
    assert len([line for line in lines if "the answer of" in line]) == 10
    assert any(line.strip() == "and 3 more" for line in lines)
    assert any("1 of this kind; expected: a name inside the image folder" in line for line in lines)
    assert lines[-1] == "error: 14 mistakes in the data of m2pt_base, listed above"
    assert "\x1b" not in shown
    assert main(["fit", *words]) == ExitCode.BAD_INPUT
    error = capfd.readouterr().err
    assert len(error.strip().split("\n")) == 3
    assert "record 1: conversations: the answer of 'fake_0' is empty; also " in error
    assert "; and 11 more" in error


def test_one_mistake_is_three_lines_and_decoding_finds_more(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    words = small_words(tmp_path)
    path = tmp_path / "vision_flan" / IMAGES / "fake_2.png"
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 8] ^= 255
    path.write_bytes(content)
    assert check(capfd, *words)[0] == ExitCode.DONE
    code, shown, error = check(capfd, *words, "--decode")
    assert code == ExitCode.BAD_INPUT
    assert "bad VisionFlan          1 mistake in" in shown
    assert len(error.strip().split("\n")) == 2
    assert "record 5" in error
    VSR.write_fake(tmp_path / "vsr")
    change_lines(tmp_path / "vsr" / "test.jsonl", {2: "{", 3: "[]"})
    code, shown, _ = check(capfd, "--benchmarks", "vsr", "--data.root", str(tmp_path), "--decode")
    assert code == ExitCode.BAD_INPUT
    assert "error: vsr: 2 mistakes in" in shown
    assert "test.jsonl:2: this is not valid JSON" in shown


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cat", "dog", "Cat"], "the class 'cat' is there twice"),
        (["pick_up", "dog", "pick up"], "the class 'pick_up' is there twice"),
        (["cat", "dog", "bird", "<image>"], "the class '<image>' contains <image>"),
    ],
)
def test_classes_that_no_answer_can_name_are_refused(tmp_path: Path, names: list[str], expected: str) -> None:
    CIFAR10.write_fake(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "batches.meta").write_bytes(python2_pickle({"label_names": names}))
    with pytest.raises(BadInputError) as caught:
        CIFAR10(str(tmp_path), "plain", limit=1).questions()
    assert any(expected in mistake.what for mistake in mistakes_of(caught.value))
