"""How answers are read: the tables of published behaviour, and any text at all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_m2pt.metrics.closed_set import closed_set, plural
from lightning_m2pt.metrics.entailment import entailment_words
from lightning_m2pt.metrics.mme_readings import mme_answer
from lightning_m2pt.metrics.pope import pope_answer, pope_official, says_neither
from lightning_m2pt.metrics.vqa import vqa_accuracy, vqa_normalised
from lightning_m2pt.metrics.yes_no import yes_no_words

# (answer, MME official, POPE official, ours); the first two from running the official functions.
YES_NO_TABLE = [
    ("Yes", "yes", "yes", "yes"),
    ("no.", "no", "no", "no"),
    ("NO", "no", "yes", "no"),
    ("No!", "no", "yes", "no"),
    ("No;", "no", "yes", "no"),
    ("Yes, there is", "yes", "yes", "yes"),
    ("Yes, there is no doubt about it.", "yes", "no", None),
    ("There is no dog.", None, "no", "no"),
    ("There isn't a dog.", None, "yes", None),
    ("I cannot tell", None, "yes", None),
    ("I do not know", None, "no", None),
    ("Not sure", "no", "yes", None),
    ("The answer is not yes", None, "no", None),
    ("The answer is no.", None, "no", "no"),
    ("**Yes**", None, "yes", "yes"),
    ("yes:", "yes", "yes", "yes"),
    ("Yes/No", "yes", "yes", None),
    ("", None, "yes", None),
    ("Y", None, "yes", None),
    ("N", None, "yes", None),
    ("True", None, "yes", "yes"),
    ("False", None, "yes", "no"),
    ("   Yes", None, "yes", "yes"),
    ("Eyes are visible.", "yes", "yes", None),
    ("Noodles are on the table.", "no", "yes", None),
    ("The image shows a snow scene.", None, "yes", None),
    ("It is not there. Yes it is.", None, "no", None),
    ("now", "no", "yes", None),
]


@pytest.mark.parametrize(("answer", "mme", "pope", "ours"), YES_NO_TABLE)
def test_yes_and_no_are_read_as_published(answer: str, mme: str | None, pope: str, ours: str | None) -> None:
    assert mme_answer(answer) == mme
    assert pope_answer(answer) == pope
    assert yes_no_words(answer) == ours


def test_newlines_count_as_spaces() -> None:
    assert mme_answer("No\nBecause it is dark.") == "no"
    assert pope_answer("No\nBecause it is dark.") == "no"
    assert mme_answer("yes\tno") == "yes"


def test_pope_counts_what_is_yes_by_default() -> None:
    assert [says_neither(answer) for answer in ("Yes", "no", "", "maybe", "eyes")] == [False, False, True, True, True]


def test_pope_without_yes_answers_or_labels_is_defined() -> None:
    table = pope_official(["no", "no"], ["yes", "no"])
    assert (table.accuracy, table.precision, table.recall, table.f1, table.yes_ratio) == (0.5, 0, 0, 0, 0)
    assert pope_official(["no"], ["no"]).recall == 0
    assert pope_official([], []).accuracy == 0
    table = pope_official(["yes", "yes", "no", "yes"], ["yes", "no", "no", "yes"])
    assert (table.accuracy, table.precision, table.recall, table.yes_ratio) == (0.75, 2 / 3, 1, 0.75)
    assert table.f1 == pytest.approx(0.8)


CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck", "pickup_truck")
DIGITS = tuple("0123456789")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        *(("Cat.", "cat"), ("A cat", "cat"), ("cats", "cat"), ("**cat**", "cat"), ("it's a cat's face", "cat")),
        *(("fire truck", "truck"), ("car", "automobile"), ("a plane", "airplane"), ("Aeroplane", "airplane")),
        *(("There is no cat.", None), ("without any", None), ("without a cat", None), ("no the cat", None)),
        *(("No, it is a cat", "cat"), ("No. A cat", "cat"), ("piano cat", "cat"), ("no dog, cat", None)),
        *(("not a cat", None), ("dog or cat", None), ("cat/dog", None), ("kitten", None), ("category", None)),
        *(("", None), ("It isn't a dog", None), ("hot-dog", None), ("CAT\ncat", "cat")),
    ],
)
def test_classes_are_read_as_whole_words(answer: str, expected: str | None) -> None:
    assert closed_set(answer, CLASSES[:-1]) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        *(("7", "7"), ("7.", "7"), ("seven", "7"), ("The digit seven", "7"), ("#7", "7"), ("an 8", "8")),
        *(("not 7", None), ("7 or 1", None), ("7\n1", None), ("7.0", None), ("None", None), ("No. 1", "1")),
        *(("07", None), ("17", None), ("seventeen", None), ("7th", None), ("VII", None), ("-7", "7")),
    ],
)
def test_digits_are_read_as_numbers_or_words(answer: str, expected: str | None) -> None:
    assert closed_set(answer, DIGITS) == expected


def test_underscores_in_class_names_are_spaces() -> None:
    assert closed_set("A pickup truck.", ("pickup_truck", "bus")) == "pickup_truck"
    assert closed_set("pickup_truck", ("pickup_truck", "bus")) == "pickup_truck"


MANY_WORDS = ("red_circle", "blue_seven", "red", "pickup_truck", "truck", "pine_tree", "maple_tree", "bee", "beetle")
MANY_WORDS += ("man", "can", "butterfly", "bus", "large_man-made_outdoor_things", "non-insect_invertebrates", "insects")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        *(("red circle", "red_circle"), ("A red circle.", "red_circle"), ("red_circle", "red_circle")),
        *(("Red-circle", "red_circle"), ("red\ncircle", "red_circle"), ("red circles", "red_circle")),
        *(("blue seven", "blue_seven"), ("blue 7", None), ("circle", None), ("red", "red"), ("red square", "red")),
        *(("The red circle is red.", None), ("red circle, red circle", "red_circle"), ("not a red circle", None)),
        *(("red circle and blue seven", None), ("a pickup truck", "pickup_truck"), ("a fire truck", "truck")),
        *(("two pickup trucks", "pickup_truck"), ("pickup truck or truck", None), ("pine tree", "pine_tree")),
        *(
            ("a pine", "pine_tree"),
            ("pine or maple tree", None),
            ("a tree", None),
            ("bee", "bee"),
            ("beetle", "beetle"),
        ),
        *(("beetles", "beetle"), ("bees", "bee"), ("beef", None), ("a man can", None), ("butterflies", "butterfly")),
        *(("buses", "bus"), ("busy", None), ("insects", "insects"), ("invertebrates", None)),
        ("non-insect invertebrates", "non-insect_invertebrates"),
        ("large man made outdoor things", "large_man-made_outdoor_things"),
        ("a large man", "man"),
    ],
)
def test_the_longest_class_name_counts(answer: str, expected: str | None) -> None:
    assert closed_set(answer, MANY_WORDS) == expected


def test_names_that_only_overlap_are_two_classes() -> None:
    assert closed_set("pickup truck stop", ("pickup_truck", "truck_stop", "truck")) is None
    assert closed_set("truck stop", ("pickup_truck", "truck_stop", "truck")) == "truck_stop"


def test_a_class_of_its_own_is_no_synonym() -> None:
    assert closed_set("a car", ("automobile", "truck")) == "automobile"
    assert closed_set("a car", ("automobile", "car")) == "car"
    assert closed_set("cats", ("cat", "cats")) == "cats"


def test_plurals_are_regular() -> None:
    names = ("cat", "fox", "bus", "couch", "butterfly", "ray", "7", "vehicles 1", "pickup truck", "y")
    plurals = ["cats", "foxes", "buses", "couches", "butterflies", "rays", "7", "vehicles 1", "pickup trucks", "ys"]
    assert [plural(name) for name in names] == plurals


ANY_TEXT = st.one_of(
    st.text(alphabet=st.characters(), max_size=200),
    st.sampled_from(
        [
            "",
            "\n\n",
            "\0",
            "\N{GRINNING FACE}",
            "\ud800",
            "yes " * 250_000,
            "no " * 250_000,
            "x" * 1_000_000,
            "1" * 1_000_000,
        ]
    ),
)


@given(ANY_TEXT)
@settings(max_examples=150, deadline=None)
def test_every_rule_survives_any_text(answer: str) -> None:
    assert mme_answer(answer) in ("yes", "no", None)
    assert pope_answer(answer) in ("yes", "no")
    assert says_neither(answer) in (True, False)
    assert yes_no_words(answer) in ("yes", "no", None)
    assert closed_set(answer, CLASSES) in (*CLASSES, None)
    assert closed_set(answer, DIGITS) in (*DIGITS, None)
    assert closed_set(answer, MANY_WORDS) in (*MANY_WORDS, None)
    assert entailment_words(answer) in ("yes", "no", "not sure", None)
    assert isinstance(vqa_normalised(answer), str)
    assert vqa_accuracy(answer, (answer,) * 10) == 1
    assert vqa_accuracy(answer, ()) == 0
