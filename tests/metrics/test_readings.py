"""Answers that our own rules read as was decided before the rules were written: ``readings.jsonl``."""

import json
from pathlib import Path

import pytest

from data_modules.cifar10 import NAMES
from data_modules.cifar100_names import FINE_NAMES
from lightning_m2pt.metrics.closed_set import closed_set
from lightning_m2pt.metrics.rules import RULES

DECIDED = [
    json.loads(line) for line in Path(__file__).with_name("readings.jsonl").read_text(encoding="utf-8").splitlines()
]
ANSWERS = {
    "vsr": ("yes", "no"),
    "snli_ve": ("yes", "not sure", "no"),
    "cifar10": NAMES,
    "cifar100": FINE_NAMES,
    "mnist": tuple("0123456789"),
}


def test_the_table_has_two_hundred_answers_of_every_set() -> None:
    assert len({(row["set"], row["answer"]) for row in DECIDED}) == len(DECIDED) >= 200
    assert {row["set"] for row in DECIDED} == ANSWERS.keys()


@pytest.mark.parametrize("row", DECIDED, ids=lambda row: f"{row['set']}-{row['answer']!a}")
def test_answers_are_read_as_decided(row: dict[str, str]) -> None:
    assert RULES[row["rule"]].parse(row["answer"], ANSWERS[row["set"]]) == row["reading"], row["why"]


@pytest.mark.parametrize("kind", ["cifar10", "cifar100", "mnist"])
def test_every_class_is_read_in_plain_sentences(kind: str) -> None:
    for name in ANSWERS[kind]:
        plain = name.replace("_", " ")
        for answer in (plain, plain.upper() + ".", f"A {plain}", f"It is a {plain}.", f"What is it? A {plain}."):
            assert closed_set(answer, ANSWERS[kind]) == name


def test_a_phrase_that_is_a_class_names_it() -> None:
    assert closed_set("two hot dogs", ("hot_dog", "dog")) == "hot_dog"
    assert closed_set("a hot dog", ("dog", "cat")) is None


def test_letters_of_the_classes_own_names_are_known() -> None:
    assert closed_set("\u043a\u043e\u0442", ("\u043a\u043e\u0442", "dog")) == "\u043a\u043e\u0442"
    assert closed_set("dog, \u043d\u0435\u0442", ("\u043a\u043e\u0442", "dog")) is None


def test_negations_in_a_classs_own_name_are_none() -> None:
    assert closed_set("No entry.", ("no_entry", "stop")) == "no_entry"
    assert closed_set("not a no entry sign", ("no_entry", "stop")) is None
    assert closed_set("no stop sign", ("no_entry", "stop")) is None


def test_a_question_mark_inside_changes_no_reading() -> None:
    assert closed_set("seven ? answer", ANSWERS["mnist"]) == "7"  # a barely tuned model of the testbed says so
    assert closed_set("seven ?", ANSWERS["mnist"]) is None
    assert closed_set("cat? dog", ANSWERS["cifar10"]) is None
