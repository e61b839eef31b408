"""Nothing of the evaluation sets is in any training stage: no picture, no digit scan, no question, no question type."""

import hashlib
import itertools
import re
from collections import Counter, defaultdict
from string import Formatter

import numpy
import pytest

from data_modules import labelled_pictures, mnist, snli_ve, vsr
from experiments.backbone_recipe.joint_stage import caption_of
from experiments.backbone_recipe.settings import RECIPES, RecipeSettings
from experiments.configuration.cli import parse_experiment
from experiments.testbed import evaluation_questions, evaluation_sets
from experiments.testbed.asking import QuestionType
from experiments.testbed.facts import CHOICES, OPPOSITES
from experiments.testbed.language_text import document
from experiments.testbed.pretraining_images import gate_pictures, pretraining_pictures
from experiments.testbed.questions import DESCRIBE_TYPE, HELD_OUT_TYPES, QUESTION_TYPES, TEXT_ONLY_TYPES, TUNED_TYPES
from experiments.testbed.rendering import ScanSplit, digit_scans
from experiments.testbed.scenes import random_generator, sample_scene
from experiments.testbed.sizes import TestbedSizes
from experiments.testbed.tuning_set import TRAINING_PART, VALIDATION_PART, tuning_records
from experiments.testbed.vocabulary import COLOURS, COLUMNS, NAMES, ROWS, article

SEED = 0
SIZES = TestbedSizes()
SLOT_WORDS = {
    "name": NAMES,
    "first": NAMES,
    "second": NAMES,
    "article": ("a", "an"),
    "colour": COLOURS,
    "row": ROWS,
    "column": COLUMNS,
    "number": tuple("1234"),
    "relation": tuple(OPPOSITES),
    "choice": tuple(CHOICES.values()),
    "direction": ("higher", "lower", "leftmost", "rightmost"),
}


def words_of(text: str) -> str:
    """Returns a text as the tokenizer reads it: lower case, words and punctuation by themselves."""
    return " ".join(re.findall(r"\w+|[^\w\s]", text.lower()))


def pattern_of(phrasing: str) -> str:
    """Returns a regular expression for every question a phrasing can become, as the tokenizer reads it."""
    parts = []
    for literal, slot, *_ in Formatter().parse(phrasing):
        parts += [re.escape(words_of(literal))] if words_of(literal) else []
        parts += [f"(?:{'|'.join(SLOT_WORDS[slot])})"] if slot else []
    return " ".join(parts)


def all_questions(phrasing: str) -> set[str]:
    """Returns every question a phrasing can become, as the tokenizer reads it."""
    slots = [slot for _, slot, *_ in Formatter().parse(phrasing) if slot and slot != "article"]
    questions = set()
    for words in itertools.product(*(SLOT_WORDS[slot] for slot in slots)):
        filled = dict(zip(slots, words, strict=True))
        questions.add(words_of(phrasing.format(**filled, article=article(filled.get("name", "a")))))
    return questions


def patterns(types: tuple[QuestionType, ...]) -> re.Pattern[str]:
    return re.compile("|".join(pattern_of(form.text) for kind in types for form in kind.phrasings))


@pytest.fixture(scope="module")
def evaluation_questions_asked() -> set[str]:
    return set().union(*map(all_questions, evaluation_questions.EVALUATION_PHRASINGS))


@pytest.fixture(scope="module")
def tuning_texts() -> list[tuple[str, str]]:
    return [
        (record.task_name.removeprefix("testbed+"), words_of(record.instruction))
        for part, images in ((TRAINING_PART, 1500), (VALIDATION_PART, SIZES.validation_images))
        for record in tuning_records(SEED, part, images, SIZES.questions_per_image)
    ]


def test_no_evaluation_question_is_within_a_question_of_any_stage(evaluation_questions_asked: set[str]) -> None:
    # Complete: every phrasing of every type against every question evaluation can ask. `search`, so that an evaluation
    # question is not hidden inside a longer one; and the other way round with the patterns of evaluation.
    training = patterns(QUESTION_TYPES)
    assert len(evaluation_questions_asked) > 1800
    assert not [question for question in evaluation_questions_asked if training.fullmatch(question)]
    evaluation = re.compile("|".join(map(pattern_of, evaluation_questions.EVALUATION_PHRASINGS)))
    for kind in QUESTION_TYPES:
        for form in kind.phrasings:
            for words in itertools.islice(sorted(all_questions(form.text)), 200):
                assert not evaluation.search(words), words


def test_the_evaluation_sets_ask_only_the_evaluation_phrasings(evaluation_questions_asked: set[str]) -> None:
    mme = {
        text
        for item in evaluation_sets.mme_items(SEED, TestbedSizes(mme_images_per_subtask=30))
        for text, _ in item.questions
    }
    pope = {item.text for item in evaluation_sets.pope_items(SEED, TestbedSizes(training_images=50, pope_images=10))}
    vsr = {
        item.caption + evaluation_questions.RELATION_QUESTION.removeprefix(evaluation_questions.RELATION)
        for item in evaluation_sets.vsr_items(SEED, TestbedSizes(vsr_statements=50))
    }
    sizes = TestbedSizes(hypotheses=60, number_questions=20)
    snli_ve = {
        f'Can you conclude "{item.hypothesis}" from the content of the image? Please answer yes, no or not sure.'
        for item in evaluation_sets.snli_ve_items(SEED, sizes)
    }
    text_vqa = {item.question for item in evaluation_sets.text_vqa_items(SEED, sizes)}
    assert {words_of(text) for text in mme | pope | vsr | snli_ve | text_vqa} <= evaluation_questions_asked


def test_the_data_modules_ask_in_evaluations_words() -> None:
    base = parse_experiment(["--config", "experiments/m2pt_base.yaml"]).config
    (cifar100,) = [each for each in base["benchmarks"] if each["class_path"].endswith("CIFAR100")]
    assert cifar100["init_args"]["question"] == evaluation_questions.COLOURED_OBJECT
    assert snli_ve.QUESTION_TEMPLATE.format(hypothesis=evaluation_questions.HYPOTHESIS) == (
        evaluation_questions.HYPOTHESIS_QUESTION
    )
    assert labelled_pictures.MAIN_OBJECT == evaluation_questions.MAIN_OBJECT
    assert mnist.QUESTION == evaluation_questions.SHOWN_DIGIT
    assert vsr.QUESTION_TEMPLATE.format(caption=evaluation_questions.RELATION) == evaluation_questions.RELATION_QUESTION


@pytest.mark.parametrize("settings", RECIPES.values(), ids=RECIPES)
def test_text_pretraining_says_only_what_its_types_declare(
    settings: RecipeSettings, evaluation_questions_asked: set[str]
) -> None:
    declared = {kind.name: patterns((kind,)) for kind in QUESTION_TYPES}
    seen = set()
    side = settings.architecture.patches_per_cell_side
    for part, text, patches_per_cell_side in (
        ("language", settings.language.text, None),
        ("raster_language", settings.raster_language.text, side),
        ("joint", settings.joint.text, side),
    ):
        for index in range(800):
            written = document(
                settings.seed,
                part,
                index,
                patches_per_cell_side=patches_per_cell_side,
                questions=text.questions,
                own_weights=dict(text.own_weights),
            )
            for asked in written.questions:
                words = words_of(asked.question)
                assert declared[asked.type_name].fullmatch(words)
                assert words not in evaluation_questions_asked
                seen.add(asked.type_name)
    assert seen == set(declared)


def test_images_come_with_captions_only_before_stage_2() -> None:
    assert DESCRIBE_TYPE in TUNED_TYPES
    for index in range(100):
        scene = sample_scene(random_generator("captions", index))
        asked = caption_of(scene, SEED, 0, index)
        assert asked.type_name == DESCRIBE_TYPE.name
        assert asked.answer == scene.caption()


def test_stage_2_asks_tuned_types_only(
    tuning_texts: list[tuple[str, str]], evaluation_questions_asked: set[str]
) -> None:
    declared = {kind.name: patterns((kind,)) for kind in TUNED_TYPES}
    held_out = patterns(HELD_OUT_TYPES + TEXT_ONLY_TYPES)
    for task, words in tuning_texts:
        assert declared[task].fullmatch(words)
        assert not held_out.fullmatch(words)
        assert words not in evaluation_questions_asked
    assert {task for task, _ in tuning_texts} == set(declared)


def test_colour_yes_no_and_colour_statements_are_not_tuned() -> None:
    tuned = {kind.name for kind in TUNED_TYPES}
    assert not tuned & {"color_check", "color_statement", "presence", "number", "position_check", "relation"}
    assert not tuned & {"main_object", "digit", "colored_object", "written_digits", "hypothesis"}


def test_training_pictures_show_no_evaluation_scan() -> None:
    training, evaluation = digit_scans(ScanSplit.TRAINING)[0], digit_scans(ScanSplit.EVALUATION)[0]
    assert not {scan.tobytes() for scan in training} & {scan.tobytes() for scan in evaluation}


def hashes(pictures: numpy.ndarray | list[numpy.ndarray]) -> set[bytes]:
    return {hashlib.sha256(picture.tobytes()).digest() for picture in pictures}


@pytest.mark.parametrize(("pretraining", "tuning"), [(2000, 500), pytest.param(24_000, 6000, marks=pytest.mark.slow)])
def test_no_evaluation_picture_is_in_any_training_stage(
    pretraining: int, tuning: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The slow one is the whole proof; the fast one takes the first of every training set and all of evaluation.
    recipes = list(RECIPES.values())
    if tuning == SIZES.training_images:
        stages = [stage for recipe in recipes for stage in (recipe.vision, recipe.dense, recipe.joint)]
        assert {pretraining} == {stage.pictures for stage in stages}
    monkeypatch.setattr(evaluation_sets, "NameStatistics", NoStatistics)
    sets = [
        *(hashes(pretraining_pictures(recipe.seed, pretraining).images) for recipe in recipes),
        *(hashes(gate_pictures(recipe.seed, recipe.gates.pictures).images) for recipe in recipes),
        hashes([record.image for record in tuning_records(SEED, TRAINING_PART, tuning, 1)]),
        hashes([record.image for record in tuning_records(SEED, VALIDATION_PART, SIZES.validation_images, 1)]),
        hashes(
            [
                *(item.image for item in evaluation_sets.mme_items(SEED, SIZES)),
                *(item.image for item in evaluation_sets.vsr_items(SEED, SIZES)),
                *(item.image for item in evaluation_sets.pope_items(SEED, SIZES)),
                *evaluation_sets.cifar10_pictures(SEED, SIZES).images,
                *evaluation_sets.mnist_pictures(SEED, SIZES).images,
                *evaluation_sets.cifar100_pictures(SEED, SIZES).images,
                *(item.image for item in evaluation_sets.snli_ve_items(SEED, SIZES)),
                *(item.image for item in evaluation_sets.text_vqa_items(SEED, SIZES)),
            ]
        ),
    ]
    # POPE asks all its questions of a split about the same picture, so it counts once.
    expected = [*[pretraining] * 2, *[600] * 2, tuning, 400, 520 + 1000 + 100 + 5 * 1000]
    assert [len(found) for found in sets] == expected
    assert len(set().union(*sets)) == sum(expected)


def test_a_hypothesis_does_not_give_its_answer_away(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever knows only how often each name is entailed, contradicted or neutral must stay near the constant answer.
    monkeypatch.setattr(evaluation_sets, "_picture", lambda *arguments: None)
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    for item in evaluation_sets.snli_ve_items(SEED + 1, TestbedSizes(hypotheses=4000)):
        labels[item.hypothesis.split()[1]][item.gold_label] += 1
    likeliest = {name: counts.most_common(1)[0][0] for name, counts in labels.items()}
    items = evaluation_sets.snli_ve_items(SEED, TestbedSizes(hypotheses=1000))
    blind = sum(likeliest[item.hypothesis.split()[1]] == item.gold_label for item in items) / len(items)
    assert blind < 0.38


class NoStatistics:
    """Stands in for the statistics of POPE's negatives, which decide words and not pictures."""

    def __init__(self, scenes: object) -> None:
        pass

    def popular(self, candidates: list[str]) -> list[str]:
        return candidates

    def adversarial(self, candidates: list[str], present: list[str]) -> list[str]:
        return candidates
