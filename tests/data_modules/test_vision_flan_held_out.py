"""Held-out records of Vision-Flan: the validation part of the tuning set, and never what is tuned on."""

from pathlib import Path

import pytest

from data_modules.vision_flan import VisionFlan, VisionFlanRecord, write_vision_flan
from data_modules.vision_flan_held_out import VisionFlanHeldOut, VisionFlanWithoutTasks, refuse_tuned_questions
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.testing.small_processor import small_processor
from tests.support.data_fixtures import fake_pictures
from tests.support.small_experiment import small_words


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Forty pictures, each asked by three tasks; ids are not unique."""
    pictures = fake_pictures(40, 8)
    records = [
        VisionFlanRecord(
            "same", f"{n // 3}.png", pictures[n // 3], f"task_{n % 3}", f"What of {n % 3}?", f"{n}", n % 2 == 0
        )
        for n in range(120)
    ]
    write_vision_flan(tmp_path, records)
    return tmp_path


def facts(items: list) -> set[tuple[str, str, str]]:
    """Returns (picture, question, answer) of samples or questions."""
    return {
        (item.image_id, turn.question, turn.answer) for item in items if hasattr(item, "turns") for turn in item.turns
    } | {(item.image_id, item.text, item.target) for item in items if hasattr(item, "target")}


@pytest.mark.parametrize("questions_per_sample", [1, 3])
def test_held_out_questions_are_the_validation_part(root: Path, questions_per_sample: int) -> None:
    tuning = VisionFlan(str(root), "plain", 4, questions_per_sample=questions_per_sample, validation_fraction=0.3)
    train, validation = tuning.read_once()
    held_out = VisionFlanHeldOut(str(root), "plain", validation_fraction=0.3, questions_per_task=None)
    assert facts(held_out.questions()) == facts(validation)
    assert len(held_out.questions()) == len(validation) > 0
    assert not facts(held_out.questions()) & facts(train)
    assert not {q.image_id for q in held_out.questions()} & {sample.image_id for sample in train}
    assert {question.id for question in held_out.questions()} == {sample.id for sample in validation}
    refuse_tuned_questions(held_out, train)
    held_out.connect(small_processor(8))
    held_out.check()
    held_out.setup()
    asked = [name for batch in held_out.predict_dataloader() for name in batch.sample_ids]
    assert sorted(asked) == sorted(question.id for question in held_out.questions())
    assert (held_out.name, held_out.rules) == ("vision_flan", ("exact",))


def test_whole_tasks_are_left_out(root: Path) -> None:
    tuning = VisionFlanWithoutTasks(str(root), "plain", 4, ["task_1"], validation_fraction=0.2)
    train, validation = tuning.read_once()
    assert {sample.tasks[0] for sample in train} == {"task_0", "task_2"}
    assert len(train) + len(validation) == 120
    held_out = VisionFlanHeldOut(str(root), "plain", held_out_tasks=["task_1"], questions_per_task=None)
    assert {question.subtask for question in held_out.questions()} == {"task_1"}
    assert len(held_out.questions()) == 40
    assert not facts(held_out.questions()) & facts(train)
    refuse_tuned_questions(held_out, train)
    everything, _ = VisionFlan(str(root), "plain", 4).read_once()
    with pytest.raises(BadInputError, match=r"'1/same' is tuned on, at .*record 2"):
        refuse_tuned_questions(held_out, everything)
    with pytest.raises(BadInputError, match="there is no task 'task_9'"):
        VisionFlanWithoutTasks(str(root), "plain", 4, ["task_9"]).read_once()


def test_a_few_of_every_task_do_not_depend_on_the_files_order(root: Path) -> None:
    few = VisionFlanHeldOut(str(root), "plain", validation_fraction=0.5, questions_per_task=4).questions()
    assert [question.subtask for question in few].count("task_2") == 4
    assert len(few) == 12
    pictures = fake_pictures(40, 8)
    records = [
        VisionFlanRecord("same", f"{n // 3}.png", pictures[n // 3], f"task_{n % 3}", f"What of {n % 3}?", f"{n}", True)
        for n in reversed(range(120))
    ]
    write_vision_flan(root, records)
    again = VisionFlanHeldOut(str(root), "plain", validation_fraction=0.5, questions_per_task=4).questions()
    assert facts(again) == facts(few)
    alone = VisionFlanHeldOut(str(root), "plain", held_out_tasks=["task_2"], questions_per_task=4).questions()
    assert len(alone) == 4


def test_a_validation_file_is_held_out_whole(root: Path) -> None:
    (root / "all.json").write_bytes((root / "annotation_191-task_1k.json").read_bytes())
    held_out = VisionFlanHeldOut(str(root), "plain", validation_file="all.json", questions_per_task=2)
    with pytest.raises(BadInputError, match="there twice"):  # as the tuning module refuses it
        held_out.questions()
    path = root / "all.json"
    path.write_text(path.read_text().replace("What of", "Which of"))
    held_out = VisionFlanHeldOut(str(root), "plain", validation_file="all.json", questions_per_task=2)
    assert len(held_out.questions()) == 6
    assert all(question.id.startswith("validation/") for question in held_out.questions())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "nothing is held out"),
        ({"validation_fraction": 0.1, "questions_per_task": 0}, "0 is too few"),
        ({"validation_file": "a.json", "held_out_tasks": ["a"]}, "both validation_file and held_out_tasks"),
        ({"validation_file": "a.json", "validation_fraction": 0.1}, "both validation_file and validation_fraction"),
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0"),
    ],
)
def test_options_that_do_not_fit_are_refused(root: Path, options: dict, expected: str) -> None:
    with pytest.raises(BadInputError, match=expected):
        VisionFlanHeldOut(str(root), "plain", **options)


def test_an_experiment_that_tunes_on_its_held_out_set_is_refused(tmp_path: Path, capfd) -> None:
    words = small_words(tmp_path)
    arguments = f"root: {tmp_path}/vision_flan, template: plain, validation_fraction: 0.4"
    benchmark = f"[{{class_path: data_modules.vision_flan_held_out.VisionFlanHeldOut, init_args: {{{arguments}}}}}]"
    assert main(["check", *words[:-1], benchmark]) == ExitCode.BAD_INPUT
    error = capfd.readouterr().err
    assert "is tuned on, at" in error
    assert len(error.strip().split("\n")) == 3
    assert main(["check", *words[:-1], benchmark, "--data.validation_fraction", "0.4"]) == ExitCode.DONE
    assert "VisionFlanHeldOut" in capfd.readouterr().out
