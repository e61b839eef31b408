"""``m2pt data show`` puts the set's own pixels, questions and answers on a sheet and in the terminal."""

import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from PIL import Image

from data_modules.mme import MME
from data_modules.mnist import MNIST
from data_modules.pope import POPE
from data_modules.reading.files import fake_image
from experiments.commands.data_show import different_questions
from experiments.datasets.contact_sheet import (
    ELLIPSIS,
    OVERVIEW,
    SINGLE,
    ShownPicture,
    ShownQuestion,
    ShownSet,
    fitted_picture,
    sheet_of_set,
    wrapped,
)
from experiments.datasets.spread import spread_positions
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main
from tests.support.small_experiment import small_words


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Words for an experiment with an invented tuning set and three invented evaluation sets."""
    benchmarks = []
    for data_module in (MME, POPE, MNIST):
        root = tmp_path / data_module.name
        data_module.write_fake(root)
        class_path = f"{data_module.__module__}.{data_module.__name__}"
        benchmarks.append(f"{{class_path: {class_path}, init_args: {{root: {root}, template: plain}}}}")
    return [*small_words(tmp_path)[:-1], f"[{', '.join(benchmarks)}]"]


def show(capfd, *words: str) -> tuple[int, str, str]:
    code = main(["data", "show", *words])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def sheet_pixels(path: Path) -> numpy.ndarray:
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        return numpy.asarray(sheet.convert("RGB"))


def times_found(picture: numpy.ndarray, sheet: numpy.ndarray, side: int) -> int:
    """How often the enlarged picture stands in the sheet, pixel by pixel."""
    factor = side // max(picture.shape[:2])
    grey_as_rgb = picture if picture.ndim == 3 else numpy.stack([picture] * 3, axis=2)
    enlarged = grey_as_rgb.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width, _ = enlarged.shape
    first_row = enlarged[0, : 2 * factor]
    found = 0
    for top, left in numpy.argwhere((sheet == first_row[0]).all(axis=2)):
        if numpy.array_equal(sheet[top, left : left + 2 * factor], first_row):
            found += numpy.array_equal(sheet[top : top + height, left : left + width], enlarged)
    return found


def test_a_set_of_two_questions_a_picture(capfd, tmp_path, words):
    path = tmp_path / "sheet.png"
    code, out, _ = show(capfd, *words, "--set", "mme", "--output", str(path))
    assert code == ExitCode.DONE
    assert str(path) in out.replace("\n", "")
    assert "12 questions on 6 pictures" in out
    revision = MME(str(tmp_path / "mme"), "plain").data_revision
    assert revision[:12] in out
    for text in ("existence/fake_0.png/1", "existence/fake_0.png/2", "Is the number 1 in existence?", "template plain"):
        assert text in out
    assert out.count("Yes") == 6
    sheet = sheet_pixels(path)
    for number in range(2):
        # Once in existence, once in count; the third subtask's pictures are JPEGs.
        assert times_found(fake_image(number), sheet, SINGLE.side) == 2
    assert sheet.shape[1] > 4 * SINGLE.side


def test_a_picture_of_many_questions_appears_once(capfd, tmp_path, words):
    path = tmp_path / "pope.png"
    code, out, _ = show(capfd, *words, "--set", "pope", "--output", str(path))
    assert code == ExitCode.DONE
    assert "12 questions on 2 pictures" in out
    assert out.count("Is there a") == 4  # the three splits ask the same two questions on each picture
    for number in range(2):
        assert times_found(fake_image(number), sheet_pixels(path), SINGLE.side) == 1


def test_grey_pictures_and_the_count(capfd, tmp_path, words):
    code, out, _ = show(capfd, *words, "--set", "mnist", "--count", "2")
    assert code == ExitCode.DONE
    questions = MNIST(str(tmp_path / "mnist"), "plain").questions()
    chosen = [questions[position] for position in spread_positions(len(questions), 2)]
    assert [question.id for question in questions if f" {question.id} " in out] == [item.id for item in chosen]
    sheet = sheet_pixels(tmp_path / "outputs" / "data_show" / "mnist.png")
    assert all(times_found(item.image, sheet, SINGLE.side) == 1 for item in chosen)


def test_the_tuning_set_shows_every_turn_of_its_first_conversations(capfd, tmp_path, words):
    more = ["--data.questions_per_sample", "2", "--count", "3"]
    code, out, _ = show(capfd, *words, *more, "--set", "vision_flan")
    assert code == ExitCode.DONE
    assert [number for number in range(16) if f"What is the number {number} ?" in out] == [0, 1, 2, 3, 4, 5]
    assert "yes it is" in out
    assert "16 questions on 8 pictures to train on" in out
    sheet = sheet_pixels(tmp_path / "outputs" / "data_show" / "vision_flan.png")
    assert [times_found(fake_image(number), sheet, SINGLE.side) for number in range(4)] == [1, 1, 1, 0]


def test_every_set_on_one_sheet(capfd, tmp_path, words):
    path = tmp_path / "figures" / "all.png"
    code, out, _ = show(capfd, *words, "--set", "all", "--count", "2", "--output", str(path))
    assert code == ExitCode.DONE
    assert all(f"{name}: " in out for name in ("vision_flan", "mme", "pope", "mnist"))
    sheet = sheet_pixels(path)
    assert sheet.shape[0] > 4 * 180
    # The first picture is the same in the tuning set, MME and POPE.
    assert times_found(fake_image(0), sheet, OVERVIEW.side) == 3
    assert times_found(MNIST(str(tmp_path / "mnist"), "plain").questions()[0].image, sheet, OVERVIEW.side) == 1


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--set", "mmee"], ["--set", "'mmee'", "vision_flan, mme, pope, mnist, all", "did you mean `--set mme`?"]),
        (["--set", "nothing like it"], ["--set", "m2pt_base.yaml", "--config"]),
        ([], ["--set", "m2pt data show --help"]),
        (["--set", "mme", "--count", "0"], ["--count", "1 to 200"]),
        (["--set", "mme", "--count", "many"], ["--count"]),
        (["--set", "mme", "--output", "sheet.jpg"], ["--output", ".png"]),
        (["--set", "mme", "--data.bogus", "1"], ["data.bogus"]),
    ],
    ids=" ".join,
)
def test_mistakes_end_in_three_lines(capfd, tmp_path, words, flags, named):
    code, out, err = show(capfd, *words, *flags)
    assert code == ExitCode.BAD_INPUT
    assert not out
    assert len(err.splitlines()) <= 3
    assert err.startswith("error: ")
    assert all(text in err for text in named), err
    assert not (tmp_path / "outputs").exists()


def test_data_are_rendered_first_and_only_for_a_set_that_is_there(capfd, monkeypatch, tmp_path, words):
    asked_for = []
    monkeypatch.setattr("experiments.commands.data_show.render_testbed_if_used", asked_for.append)
    assert show(capfd, *words, "--set", "none")[0] == ExitCode.BAD_INPUT
    assert not asked_for
    assert show(capfd, *words, "--set", "pope", "--count", "1")[0] == ExitCode.DONE
    assert [experiment.data.root for experiment in asked_for] == [tmp_path / "vision_flan"]


def test_an_unknown_set_ends_in_three_lines_of_the_real_command(words):
    command = [sys.executable, "-m", "lightning_m2pt.main", "data", "show", *words, "--set", "popes"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == ExitCode.BAD_INPUT
    assert not answer.stdout
    assert len(answer.stderr.splitlines()) == 3, answer.stderr
    assert "did you mean `--set pope`?" in answer.stderr


def test_a_missing_picture_is_named(capfd, tmp_path, words):
    (tmp_path / "mme" / "count" / "fake_1.png").unlink()
    code, _, err = show(capfd, *words, "--set", "mme")
    assert code == ExitCode.BAD_INPUT
    assert "1 of 6 images are missing" in err
    assert str(tmp_path / "mme" / "count" / "fake_1") in err


@pytest.mark.parametrize("name", [[], ["show"], ["testbed"]], ids=str)
def test_help_teaches(capfd, name):
    with pytest.raises(SystemExit) as stopped:
        main(["data", *name, "--help"])
    assert not stopped.value.code
    out = capfd.readouterr().out
    assert "testbed" in out if not name else f"m2pt data {name[0]}" in out
    if name == ["show"]:
        assert "m2pt data show --set all" in out


def test_big_pictures_shrink_small_ones_grow_by_whole_numbers():
    assert fitted_picture(Image.new("RGB", (1000, 500)), 200).size == (200, 100)
    assert fitted_picture(Image.new("RGB", (9000, 1)), 200).size == (200, 1)
    assert fitted_picture(Image.new("RGB", (24, 12)), 200).size == (192, 96)
    assert fitted_picture(Image.new("RGB", (200, 7)), 200).size == (200, 7)


def test_any_picture_and_text_make_a_sheet():
    questions = (ShownQuestion("a", "", "word " * 500, ""), ShownQuestion("a", "b", "", "x" * 900))
    sizes = [(1, 1), (3000, 20), (20, 3000), (240, 240), (241, 241)]
    pictures = tuple(ShownPicture(Image.new("RGB", size), questions, asked=9) for size in sizes)
    sheet = sheet_of_set(ShownSet("any", ("fact",), pictures))
    assert sheet.width < 6 * SINGLE.side
    assert sheet.height < 5 * SINGLE.side


def test_long_texts_are_wrapped_and_cut():
    assert wrapped("one two  three\nfour", 9, 5, len) == ["one two", "three", "four"]
    assert wrapped("one two three four", 9, 2, len) == ["one two", "three" + ELLIPSIS]
    assert wrapped("abcdefghij", 4, 5, len) == ["abcd", "efgh", "ij"]
    assert wrapped("abcdefghij", 4, 2, len) == ["abcd", "efg" + ELLIPSIS]
    assert wrapped("a\x1b[31mb", 9, 1, len) == ["a [31mb"]


def test_positions_are_spread_and_do_not_fall_in_with_a_repeating_order():
    assert spread_positions(3, 12) == [0, 1, 2]
    assert spread_positions(0, 3) == []
    positions = spread_positions(1000, 10)
    assert [position // 100 for position in positions] == list(range(10))
    for period in (2, 3, 4, 5, 10, 100):
        assert len({position % period for position in positions}) >= min(period, 5), period


def test_questions_of_a_picture_differ_and_come_from_all_over():
    splits = ("random", "popular", "adversarial")
    texts = ["a", "x", "b", "y", "c", "z"]
    asked = [
        ShownQuestion(f"{split}/{number}", split, text, "") for split in splits for number, text in enumerate(texts)
    ]
    chosen = different_questions(asked, 3)
    assert [question.subtask for question in chosen] == list(splits)
    assert len({question.text for question in chosen}) == 3
    assert len(different_questions(asked[:2] * 4, 3)) == 2
