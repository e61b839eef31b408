"""What the report says a tuning set shares with evaluation sets."""

import pytest

from lightning_m2pt.main import main
from lightning_m2pt.report.tables.contamination import (
    OVERLAPS,
    TASKS,
    contamination_notes,
    overlaps_with,
    recorded_tasks,
)
from lightning_m2pt.runs.evaluated import ORDER_OF_SETS
from lightning_m2pt.storage.run_record import read_run_record
from tests.support.answers.evaluated_folders import mnist_questions, vsr_questions, write_predictions, write_run
from tests.support.small_experiment import fitted, small_words

VISION_FLAN_TASKS = (
    "MNIST-M+number_recognition",
    "cinic-10+object_presence_animal",
    "STL-10+Image_Classification",
    "FLICKR30K+caption_image",
    "LOC_NARRATIVES+flickr30k_images_caption",
    "LOC_NARRATIVES+ade20k_images_caption",
    "VQA",
    "VQA_object_presence",
    "VQARAD+question_answer",
    "GQA",
    "textcaps+caption_generation",
    "Yoga-82+yoga_pose_recognition",
)


@pytest.mark.parametrize(
    ("benchmark", "expected"),
    [
        ("mnist", [["MNIST-M+number_recognition"]]),
        ("cifar10", [["cinic-10+object_presence_animal"], ["STL-10+Image_Classification"]]),
        ("cifar100", []),
        ("snli_ve", [["FLICKR30K+caption_image", "LOC_NARRATIVES+flickr30k_images_caption"]]),
        ("pope", [["VQA", "VQA_object_presence"], ["GQA"]]),
        ("vsr", [["VQA", "VQA_object_presence"], ["GQA"]]),
        ("text_vqa", [["textcaps+caption_generation"]]),
    ],
)
def test_published_tasks_are_named_with_what_they_share(benchmark, expected):
    assert [tasks for _, tasks in overlaps_with(benchmark, VISION_FLAN_TASKS)] == expected


def test_every_overlap_is_about_sets_we_have_and_gives_a_reason():
    for overlap in OVERLAPS:
        assert overlap.tasks
        assert set(overlap.sets) <= set(ORDER_OF_SETS)
        assert len(overlap.reason) > 20


def test_sentences_for_known_unknown_and_synthetic_tasks():
    notes = contamination_notes("run", VISION_FLAN_TASKS, ["mnist", "cifar100"])
    assert notes == [
        "not zero-shot without reserve: run: mnist shares with the tuning set: MNIST-M+number_recognition: MNIST's "
        "digits on photographs: pictures of the same writing, and all labels",
        "zero-shot: run: none of the 12 tuning tasks is known to share pictures or labels with cifar100",
    ]
    assert "cannot be told" in contamination_notes("run", None, ["mnist"])[0]
    assert "other random streams" in contamination_notes("run", ["testbed+a", "testbed+b"], ["mnist"])[0]
    own = {"mine": {"shared_with_tasks": {"testbed+a": "the same pictures"}}}
    assert contamination_notes("run", ["testbed+a", "testbed+b"], ["mnist", "mine", "yours"], headers=own) == [
        "zero-shot: run: tuned on synthetic tasks of the testbed (2); pictures of mnist come from other random streams "
        "and other digit scans, and their question types are not tuned (docs/testbed.md)",
        "not zero-shot without reserve: run: mine shares with the tuning set: testbed+a: the same pictures",
        "zero-shot: run: none of the 2 tuning tasks is known to share pictures or labels with yours",
    ]
    mixed = contamination_notes("run", ["testbed+a", "MNIST-M+number_recognition"], ["mnist"])
    assert mixed[0].startswith("not zero-shot without reserve")
    assert recorded_tasks({TASKS: "MNIST"}) is None


def test_a_run_records_the_tasks_it_was_tuned_on(tmp_path):
    experiment, run = fitted(small_words(tmp_path, steps=1))
    tasks = {task for sample in experiment.data.read_once()[0] for task in sample.tasks}
    assert len(tasks) > 1
    assert recorded_tasks(read_run_record(run)) == sorted(tasks)


def test_the_sentences_stand_below_the_table(capfd, tmp_path):
    for name, tasks in (("tuned", VISION_FLAN_TASKS), ("silent", None)):
        write_run(tmp_path / name / "run", 0, tasks)
        write_predictions(tmp_path / name / "run", "mnist", mnist_questions(20), 0.8)
        write_predictions(tmp_path / name / "run", "vsr", vsr_questions(20), 0.8)
    assert main(["report", str(tmp_path / "tuned"), str(tmp_path / "silent")]) == 0
    text = " ".join(capfd.readouterr().out.split())
    assert "tuned: mnist shares with the tuning set: MNIST-M+number_recognition" in text
    assert "tuned: vsr shares with the tuning set: VQA, VQA_object_presence: COCO pictures" in text
    assert "zero-shot? silent: run.json names no tuning tasks" in text


def test_a_set_of_ones_own_says_what_it_shares() -> None:
    header = {"shared_with_tasks": {"MNIST-M+*": "my own digits"}}
    notes = contamination_notes("run", VISION_FLAN_TASKS, ["mine", "cifar100"], headers={"mine": header})
    assert "mine shares with the tuning set: MNIST-M+number_recognition: my own digits" in notes[0]
    assert "cifar100" in notes[1]
    assert overlaps_with("mine", ["other"], header) == []
