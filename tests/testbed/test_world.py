"""The testbed's world: scenes, pictures, questions, and the command that renders the sets."""

import json
import random
import re
from pathlib import Path

import numpy
import pytest
from rich.console import Console

from experiments.commands.data_testbed import main
from experiments.testbed import evaluation_sets
from experiments.testbed.asking import Use, ask_questions
from experiments.testbed.facts import colour_hypothesis
from experiments.testbed.manifest import MANIFEST, SET_NAMES, is_complete
from experiments.testbed.pretraining_images import picture_generator
from experiments.testbed.questions import (
    HELD_OUT_TYPES,
    QUESTION_TYPES,
    TEXT_ONLY_TYPES,
    TUNED_TYPES,
    question_type_named,
)
from experiments.testbed.render import SETS, write_testbed
from experiments.testbed.rendering import Domain, ScanSplit, digit_scans, render, render_grey
from experiments.testbed.scenes import Scene, SceneKind, SceneObject, random_generator, sample_scene
from experiments.testbed.sizes import TestbedSizes
from experiments.testbed.tuning_set import TRAINING_PART, tuning_records
from experiments.testbed.vocabulary import COLOURS, DIGITS, NAMES, SHAPES, article
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.vqa import vqa_accuracy

SMALL = TestbedSizes(12, 4, 4, 3, 8, 4, 6, 6, 6)
SCENE = Scene(
    (
        SceneObject("ring", "red", "small", "top", "left"),
        SceneObject("eight", "white", "large", "middle", "left"),
        SceneObject("bar", "red", "large", "bottom", "right"),
    )
)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("testbed")
    write_testbed(root, 0, SMALL, Console(quiet=True))
    return root


def scenes(count: int, kind: SceneKind = SceneKind.ANY) -> list[Scene]:
    return [sample_scene(random_generator("test", index), kind) for index in range(count)]


def test_a_scene_has_unique_names_and_cells_in_reading_order() -> None:
    for scene in scenes(300):
        cells = [thing.cell for thing in scene.objects]
        assert cells == sorted(set(cells))
        assert len(set(scene.names)) == len(scene.objects) <= 4


def test_single_object_scenes_hold_one_object_of_their_kind() -> None:
    assert {scene.names[0] for scene in scenes(200, SceneKind.SINGLE_SHAPE)} == set(SHAPES)
    assert {scene.names[0] for scene in scenes(200, SceneKind.SINGLE_DIGIT)} == set(DIGITS)
    assert all(set(scene.names) <= set(SHAPES) for scene in scenes(100, SceneKind.SHAPES_ONLY))


def test_shape_frequencies_are_unequal_and_partners_stand_together() -> None:
    many = scenes(2000)
    counts = {shape: sum(shape in scene.names for scene in many) for shape in SHAPES}
    assert counts["circle"] > 1.5 * counts["moon"]
    with_ring = [scene for scene in many if "ring" in scene.names]
    with_frame = sum("frame" in scene.names for scene in with_ring) / len(with_ring)
    assert with_frame > 2 * counts["frame"] / len(many)


def test_the_same_seed_gives_the_same_picture_and_another_seed_another() -> None:
    pictures = [render(SCENE, picture_generator("test", seed), Domain.SHIFTED) for seed in (1, 1, 2)]
    assert numpy.array_equal(pictures[0], pictures[1])
    assert not numpy.array_equal(pictures[0], pictures[2])


def test_rendering_leaves_the_global_generators_alone() -> None:
    before = random.getstate(), numpy.random.get_state()[1].copy()
    render(sample_scene(random_generator("test")), picture_generator("test"))
    assert random.getstate() == before[0]
    assert numpy.array_equal(numpy.random.get_state()[1], before[1])


def test_the_shifted_domain_is_the_instruction_domain_with_less_contrast() -> None:
    instruction, shifted = (
        render(SCENE, picture_generator("test"), domain).astype(float)
        for domain in (Domain.INSTRUCTION, Domain.SHIFTED)
    )
    assert shifted.std() < 0.6 * instruction.std()
    assert shifted.mean() > instruction.mean()


def test_digit_scans_are_split_by_scan() -> None:
    training, evaluation = digit_scans(ScanSplit.TRAINING)[0], digit_scans(ScanSplit.EVALUATION)[0]
    assert (len(training), len(evaluation)) == (1200, 597)
    assert not {scan.tobytes() for scan in training} & {scan.tobytes() for scan in evaluation}


def test_grey_pictures_have_one_channel() -> None:
    picture = render_grey(SCENE, picture_generator("test"), Domain.SHIFTED, ScanSplit.EVALUATION)
    assert picture.shape == (48, 48)
    assert picture.dtype == numpy.uint8


def test_at_least_sixteen_types_are_tuned_and_no_name_is_used_twice() -> None:
    assert len(TUNED_TYPES) >= 16
    assert len({kind.name for kind in QUESTION_TYPES}) == len(QUESTION_TYPES)
    assert {kind.use for kind in HELD_OUT_TYPES} == {Use.HELD_OUT}
    assert {kind.use for kind in TEXT_ONLY_TYPES} == {Use.TEXT_ONLY}


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("color", {"red", "white"}),
        ("position", {"top left", "middle left", "bottom right"}),
        ("count", {"3"}),
        ("list_objects", {"ring, eight, bar"}),
        ("list_colors", {"red, white, red"}),
        ("object_of_color", {"eight"}),
        ("digit", {"eight"}),
        ("leftmost_or_rightmost", {"bar"}),
        ("describe", {"small red ring top left, large white eight middle left, large red bar bottom right"}),
        ("main_object", set()),
        ("colored_object", set()),
        ("written_digits", {"eight"}),
        ("hypothesis", {"yes", "no", "not sure"}),
    ],
)
def test_answers_are_right(name: str, answers: set[str]) -> None:
    generator = random_generator("answers")
    asked = [question_type_named(name).ask(SCENE, generator) for _ in range(60)]
    assert {question.answer for question in asked if question} == answers


def test_truth_questions_are_right_and_balanced() -> None:
    generator = random_generator("truth")
    answers = []
    for _ in range(300):
        asked = question_type_named("relation").draw(SCENE, generator)
        assert asked is not None
        first, second = (next(t for t in SCENE.objects if t.name == asked.words[key]) for key in ("first", "second"))
        rows, columns = ("top", "middle", "bottom"), ("left", "center", "right")
        holds = {
            "left of": columns.index(first.column) < columns.index(second.column),
            "right of": columns.index(first.column) > columns.index(second.column),
            "above": rows.index(first.row) < rows.index(second.row),
            "below": rows.index(first.row) > rows.index(second.row),
        }[asked.words["relation"]]
        assert asked.answer is holds
        answers.append(holds)
    assert 0.4 < sum(answers) / len(answers) < 0.6


def test_no_question_about_a_scene_is_asked_twice() -> None:
    asked = ask_questions(SCENE, random_generator("twice"), TUNED_TYPES, 20)
    assert len({question.question for question in asked}) == len(asked) == 20


def test_articles() -> None:
    assert (article("eight"), article("one"), article("ring")) == ("an", "a", "a")


def test_tuning_records_share_pictures_and_use_both_instruction_forms() -> None:
    records = list(tuning_records(0, TRAINING_PART, 30, 4))
    assert len(records) == 120
    assert len({record.image_name for record in records}) == 30
    assert {record.image_first for record in records} == {True, False}
    assert len({record.task_name for record in list(tuning_records(0, TRAINING_PART, 100, 4))}) >= 16


def test_mme_pictures_have_one_yes_and_one_no_question() -> None:
    items = evaluation_sets.mme_items(0, SMALL)
    assert {item.subtask for item in items} == {"existence", "count", "position", "color"}
    assert all([answer for _, answer in item.questions] == ["Yes", "No"] for item in items)
    assert all(len({text for text, _ in item.questions}) == 2 for item in items)


def test_pope_has_the_same_positives_in_each_split_and_alternates() -> None:
    items = evaluation_sets.pope_items(0, SMALL)
    splits = {split: [item for item in items if item.split == split] for split in ("random", "popular", "adversarial")}
    positives = [[(item.image_name, item.text) for item in split if item.label == "yes"] for split in splits.values()]
    assert positives[0] == positives[1] == positives[2]
    for split in splits.values():
        assert [item.label for item in split] == ["yes", "no"] * (3 * SMALL.pope_images)


def test_vsr_statements_hold_both_labels() -> None:
    items = evaluation_sets.vsr_items(0, TestbedSizes(vsr_statements=60))
    assert {item.label for item in items} == {0, 1}
    assert all(item.caption == f"The {item.subject} is {item.relation} the {item.object}." for item in items)


def test_hypotheses_follow_from_the_scene_or_not() -> None:
    colours = {thing.name: thing.colour for thing in SCENE.objects}
    answers = []
    for index in range(300):
        drawn = colour_hypothesis(SCENE, random_generator("hypothesis", index))
        seen = colours.get(drawn.words["name"])
        assert drawn.answer == ("not sure" if seen is None else "yes" if seen == drawn.words["colour"] else "no")
        answers.append(drawn.answer)
    assert all(0.25 < answers.count(answer) / 300 < 0.42 for answer in ("yes", "no", "not sure"))


def test_snli_ve_items_hold_all_three_labels_and_their_premise_is_the_caption() -> None:
    items = evaluation_sets.snli_ve_items(0, TestbedSizes(hypotheses=60))
    assert {item.gold_label for item in items} == {"entailment", "contradiction", "neutral"}
    for item in items:
        name, colour = re.fullmatch(r"The (\w+) is (\w+)\.", item.hypothesis).groups()
        assert (name in item.premise) == (item.gold_label != "neutral")
        if item.gold_label == "entailment":
            assert f"{colour} {name}" in item.premise


def test_cifar100_has_twenty_coarse_classes_of_five_fine_ones() -> None:
    assert len(set(evaluation_sets.FINE_CLASSES)) == 100
    coarse = [name.split("_")[1] for name in evaluation_sets.FINE_CLASSES]
    assert coarse == [name for name in NAMES for _ in range(5)]
    assert len(set(evaluation_sets.cifar100_pictures(0, TestbedSizes(classification_images=400)).labels)) > 90


def test_text_vqa_asks_for_unseen_digits_in_reading_order() -> None:
    items = evaluation_sets.text_vqa_items(0, TestbedSizes(number_questions=60))
    answers = [item.answers[0].split() for item in items]
    assert {len(words) for words in answers} >= {2, 3}
    for item, words in zip(items, answers, strict=True):
        assert len(words) >= 2
        number = "".join(str(DIGITS.index(word)) for word in words)
        assert item.answers == (" ".join(words), number) * 5
        assert vqa_accuracy(" ".join(words), item.answers) == vqa_accuracy(number, item.answers) == 1.0


def test_the_same_seed_writes_the_same_bytes(rendered: Path, tmp_path: Path) -> None:
    write_testbed(tmp_path, 0, SMALL, Console(quiet=True))
    manifests = [json.loads((root / MANIFEST).read_text()) for root in (rendered, tmp_path)]
    assert manifests[0] == manifests[1]
    assert {name.split("/")[0] for name in manifests[0]["files"]} == {
        "cifar10",
        "cifar100",
        "mme",
        "mnist",
        "pope",
        "snli_ve",
        "text_vqa",
        "vision_flan",
        "vsr",
    }


def test_a_complete_testbed_is_left_alone(rendered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = {path: path.stat().st_mtime_ns for path in rendered.rglob("*")}
    assert main(["--root", str(rendered)]) == 0
    assert "complete" in capsys.readouterr().err
    assert times == {path: path.stat().st_mtime_ns for path in rendered.rglob("*")}


def test_a_harmed_or_missing_file_makes_it_incomplete(rendered: Path) -> None:
    path = rendered / "mme" / "count" / "count_0000.txt"
    content = path.read_bytes()
    path.write_bytes(content + b" ")
    assert not is_complete(rendered, 0)
    path.unlink()
    assert not is_complete(rendered, 0)
    path.write_bytes(content)
    assert is_complete(rendered, 0)


def test_another_seed_in_the_same_folder_is_refused(rendered: Path) -> None:
    with pytest.raises(BadInputError, match="--force"):
        main(["--root", str(rendered), "--seed", "1"])


def test_wrong_arguments_are_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError):
        main(["--root", str(tmp_path / "file")])
    with pytest.raises(BadInputError):
        main(["--root", str(tmp_path), "--seed", "-1"])


def test_every_colour_has_a_value() -> None:
    for colour in COLOURS:
        scene = Scene((SceneObject("square", colour, "large", "middle", "center"),))
        assert render(scene, picture_generator(colour)).std() > 5


def test_the_manifest_names_what_is_rendered() -> None:
    assert list(SETS) == list(SET_NAMES)
