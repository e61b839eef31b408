"""`m2pt check --benchmarks`: forms, counts and errors of every set below a folder, without an experiment."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from data_modules.reading.files import write_image
from experiments.datasets.evaluation_sets import EVALUATION_SETS
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.inputs.samples import Question
from lightning_m2pt.main import main
from lightning_m2pt.metrics.known_sizes import REVISIONS, Revision, number_of_pictures, verdict_on
from lightning_m2pt.metrics.mme import SUBTASKS
from tests.support.data_fixtures import fake_pictures
from tests.support.hub_files import picture, write_shards
from tests.support.small_experiment import small_words


def check(capfd: pytest.CaptureFixture, *words: str) -> tuple[int, str, str]:
    code = main(["check", *words])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def row_of(name: str, table: str) -> list[str]:
    """Returns the cells of a set's row."""
    line = next(line for line in table.splitlines() if re.match(rf"\W*{name} ", line))
    return [cell.strip() for cell in re.split("[│|]", line)][1:-1]


def write_pope(root: Path, counts: Mapping[str, int], pictures: int = 500) -> None:
    for number in range(pictures):
        write_image(root / "images" / f"{number}.png", fake_pictures(1, 2)[0])
    for split, count in counts.items():
        records = [
            {
                "question_id": n + 1,
                "image": f"{n % pictures}.png",
                "text": f"Is {n} there?",
                "label": ("yes", "no")[n % 2],
            }
            for n in range(count)
        ]
        (root / f"coco_pope_{split}.json").write_text("\n".join(map(json.dumps, records)))


def test_every_set_below_a_folder_is_read_and_counted(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    for name, module in EVALUATION_SETS.items():
        module.write_fake(tmp_path / name)
    (tmp_path / "mme").rename(tmp_path / "MME_Benchmark_release_version")
    code, shown, _ = check(capfd, "--benchmarks", "all", "--data.root", str(tmp_path))
    assert code == ExitCode.DONE
    assert row_of("mme", shown)[:6] == ["mme", "original", "12", "6", "2,374", "no"]
    assert row_of("mme", shown)[6].startswith("incomplete: existence 4 of 60, count 4 of 60")
    assert "position 0 of 60 and 11 more" in shown
    assert row_of("pope", shown)[1:4] == ["original", "12", "2"]
    assert row_of("text_vqa", shown)[2:5] == ["6", "3", "5,000"]
    assert [name for name in EVALUATION_SETS if row_of(name, shown)[5] == "no"] == list(EVALUATION_SETS)


def test_popes_older_revision_is_read_and_recognised(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    write_pope(tmp_path / "pope", {"random": 2910, "popular": 3000, "adversarial": 3000})
    code, shown, _ = check(capfd, "--benchmarks", "pope", "--data.root", str(tmp_path))
    assert code == ExitCode.DONE
    assert row_of("pope", shown)[1:] == [
        "original",
        "8,910",
        "500",
        "8,910",
        "no",
        "older, with 2,910 random questions",
    ]
    benchmark = f"[{{class_path: data_modules.pope.POPE, init_args: {{root: {tmp_path}/pope, template: plain}}}}]"
    code, shown, _ = check(capfd, *small_words(tmp_path)[:-1], benchmark)
    assert code == ExitCode.DONE
    assert "note: pope is older, with 2,910 random questions" in shown
    write_pope(tmp_path / "pope", {"random": 3000})
    code, shown, _ = check(capfd, "--benchmarks=pope", f"--data.root={tmp_path}")
    assert row_of("pope", shown)[4:] == ["9,000", "yes", "official"]


def test_errors_are_one_line_a_set_and_exit_code_2(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    for name in ("vsr", "mme", "mnist"):
        EVALUATION_SETS[name].write_fake(tmp_path / name)
    (tmp_path / "vsr" / "images" / "fake_1.png").unlink()
    (tmp_path / "mme" / "count" / "fake_0.txt").write_text("One?\tYes\n")
    code, shown, _ = check(capfd, "--benchmarks", "all", "--data.root", str(tmp_path))
    assert code == ExitCode.BAD_INPUT
    errors = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "error: vsr: " in errors[1]
    assert "1 of 3 images are missing" in errors[1]
    assert "the image 'fake_0' has 1 questions" in errors[0]
    assert row_of("mnist", shown)[2] == "6"
    assert f"no folder in {tmp_path}: snli_ve, pope, cifar10, cifar100, text_vqa" in shown
    assert "cannot be read" in row_of("vsr", shown)[6]
    code, shown, _ = check(capfd, "--benchmarks", "mnist", "--data.root", str(tmp_path))
    assert code == ExitCode.DONE
    assert "no folder" not in shown
    assert check(capfd, "--benchmarks", "mnist,pope", "--data.root", str(tmp_path))[0] == ExitCode.BAD_INPUT


def test_the_hubs_form_is_named(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    rows = [{"img": picture(image), "label": 1} for image in fake_pictures(4, 8)]
    write_shards(tmp_path / "cifar10" / "plain_text", "test", rows, image_column="img")
    code, shown, _ = check(capfd, "--benchmarks", "cifar10", "--data.root", str(tmp_path))
    assert code == ExitCode.DONE
    assert row_of("cifar10", shown)[1:6] == ["hub", "4", "4", "10,000", "no"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--benchmarks", "mmee"], "there is no evaluation set 'mmee'"),
        (["--benchmarks", "all"], "none of the evaluation sets has a folder here"),
        (["--benchmarks", "all", "--model.method", "x"], "unknown argument '--model.method'"),
    ],
)
def test_mistakes_end_in_three_lines(tmp_path: Path, capfd: pytest.CaptureFixture, words: list, expected: str) -> None:
    code, _, error = check(capfd, *words, "--data.root", str(tmp_path))
    assert code == ExitCode.BAD_INPUT
    assert expected in error
    assert len(error.strip().split("\n")) <= 3


def questions(counts: Mapping[str, int], pictures: int) -> list[Question]:
    return [
        Question(f"{subtask}/{n}", subtask, "", "", Path(), f"{n % pictures}", "")
        for subtask, count in counts.items()
        for n in range(count)
    ]


def test_every_known_revision_is_recognised_by_its_counts() -> None:
    for name, revisions in REVISIONS.items():
        for revision in revisions:
            found = verdict_on(name, questions(revision.questions, 1), revision.pictures or 1)
            assert (found.agrees, found.expected, found.note) == (revision.is_official, revision.total, revision.name)
    mme = REVISIONS["mme"][0]
    assert tuple(mme.questions) == SUBTASKS
    assert mme.total == 2 * mme.pictures == 2374


def test_what_differs_is_named() -> None:
    pope = REVISIONS["pope"][0].questions
    assert verdict_on("pope", questions(pope, 1), 499).note == "official, but that has 500 pictures"
    assert (
        verdict_on("pope", questions({"random": 3000}, 1), 500).note
        == "incomplete: popular 0 of 3,000, adversarial 0 of 3,000"
    )
    assert verdict_on("pope", questions(dict(pope) | {"random": 3001}, 1), 500).note == "no known revision"
    assert verdict_on("pope", questions(dict(pope) | {"other": 1}, 1), 500).note == "no known revision"
    assert verdict_on("own", questions({"": 3}, 1), 1).note == "no size is known"
    asked = questions({"count": 4, "color": 4}, 2)
    assert (number_of_pictures(asked, 2), number_of_pictures(asked, 1)) == (4, 2)


def test_the_sizes_that_a_sets_own_class_knows_come_first() -> None:
    declared = (Revision("first", {"": 3}), Revision("draft", {"": 2}, is_official=False))
    for name in ("mine", "vsr"):
        found = [verdict_on(name, questions({"": number}, 1), 1, declared) for number in (3, 2, 1)]
        assert [(each.agrees, each.expected, each.note) for each in found] == [
            (True, 3, "first"),
            (False, 2, "draft"),
            (False, 3, "incomplete: first 1 of 3"),
        ]
