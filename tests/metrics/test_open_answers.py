"""Rules for free text: numbers that may be off, several right answers, and captions as pycocoevalcap scores them."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.needs import CAPTION_RULES
from lightning_m2pt.metrics.open_answers import captions, numbers
from lightning_m2pt.metrics.open_answers.any_match import any_match
from lightning_m2pt.metrics.open_answers.caption_words import caption_words
from lightning_m2pt.metrics.open_answers.captions import (
    best_constant_caption,
    bleu_of_all,
    bleu_of_sums,
    bleu_sums,
    cider_of_each,
    summarise_cider,
)
from lightning_m2pt.metrics.open_answers.numbers import best_constant_number, number_within, relaxed_accuracy
from lightning_m2pt.metrics.open_answers.tolerance import tolerance_of
from lightning_m2pt.metrics.predictions import check_paired, read_predictions
from lightning_m2pt.metrics.rule import Summary
from lightning_m2pt.metrics.rules import RULES
from lightning_m2pt.metrics.score import score
from lightning_m2pt.metrics.statistics import compare, resampled_scores, right_answers

HEADER = {"format": 1, "benchmark": "mine", "template": "plain", "data_revision": "0", "default_rule": "any_match"}


def row(number: int, target: str, answer: str, **others: Any) -> dict[str, Any]:
    texts = {"id": f"q{number}", "set": "mine", "subtask": "", "question": "?", "image_id": f"{number}.png"}
    return {**texts, "target": target, "answer": answer, **others}


@pytest.mark.parametrize(
    ("answer", "target", "tolerance", "is_right"),
    [
        ("105", "100", "5%", True),
        ("105.1", "100", "5%", False),
        ("95", "100", "5%", True),
        ("-95", "-100", "5%", True),
        ("-150", "-100", "5%", False),
        ("105.1", "100", "10%", True),
        ("12%", "0.12", "5%", True),
        ("12", "0.12", "5%", False),
        ("0", "0", "5%", True),
        ("0.0", "0", "5%", False),  # the published function compares texts where the target is 0
        (" 7 ", "7", "5%", True),
        ("It is 7", "7", "5%", False),
        ("$7", "7", "5%", False),
        ("YES", "Yes", "5%", True),
        ("nan", "7", "5%", False),
        ("nan", "nan", "5%", False),
        ("", "7", "5%", False),
        ("1" * 400, "7", "5%", False),
    ],
)
def test_relaxed_accuracy_is_the_published_function(answer: str, target: str, tolerance: str, is_right: bool) -> None:
    assert (relaxed_accuracy(answer, [target, tolerance]) == target) is is_right


@pytest.mark.parametrize(
    ("answer", "target", "tolerance", "read"),
    [
        ("There are 5 dogs.", "5", "0", "5"),
        ("50%", "0.5", "0", "0.5"),
        ("100%", "1", "0", "100.0"),  # only a plain target below 1 is a share
        ("There are five dogs", "5", "0", "5"),
        ("5 or 6", "5", "0", None),
        ("5, I count 5.", "5", "0", "5"),
        ("six", "5", "1", "5"),
        ("7", "5", "1", "7.0"),
        ("none that I can see", "5", "1", None),
        ("about $1,250.50", "1250.5", "0", "1250.5"),
        ("1,250", "1000", "25%", "1000"),
        ("\u22123 degrees", "-3", "0", "-3"),
        ("12 %", "0.12", "0", "0.12"),
        ("12%", "12%", "0", "12%"),
        ("12", "12%", "0", "12%"),
        ("0.12", "12%", "0", "0.12"),
        ("2019-2021", "2019", "5", None),
        ("1e999", "5", "5%", "inf"),
        ("", "5", "5%", None),
    ],
)
def test_the_one_number_of_an_answer_counts(answer: str, target: str, tolerance: str, read: str | None) -> None:
    assert number_within(answer, [target, tolerance]) == read


def test_a_tolerance_is_a_share_or_a_distance() -> None:
    assert (tolerance_of("5%", "").size, tolerance_of("5%", "").is_relative) == (0.05, True)
    assert (tolerance_of("0.5", "").size, tolerance_of("0.5", "").is_relative) == (0.5, False)
    for text in ("", "-1", "5 %", "1e3", "nan", "5%%", "\u0665", "1" * 20):
        with pytest.raises(BadInputError, match=r"here: the value is .*\n  expected: such as 5%"):
            tolerance_of(text, "here")


def test_rules_for_numbers_ask_for_targets_and_tolerances_they_can_read() -> None:
    relative, absolute = row(1, "7", "7", tolerance="5%"), row(2, "8", "8", tolerance="1")
    assert score(HEADER, [relative, absolute], "number_within").value == 100
    with pytest.raises(BadInputError, match="relaxed_accuracy does not fit: the tolerance of 'q2' is '1'"):
        score(HEADER, [relative, absolute], "relaxed_accuracy")
    with pytest.raises(BadInputError, match="number_within does not fit: the target of 'q3' is 'blue'"):
        score(HEADER, [row(3, "blue", "", tolerance="1")], "number_within")
    with pytest.raises(BadInputError, match="the prediction 'q4' names no tolerance"):
        score(HEADER, [row(4, "7", "7")], "number_within")
    with pytest.raises(BadInputError, match="prediction 1: tolerance: the value is 5"):
        score(HEADER, [row(4, "7", "7", tolerance=5)], "number_within")


def test_any_right_answer_is_read_as_the_target() -> None:
    accepted = ["fire hydrant", "hydrant", "A"]
    assert any_match("A hydrant.", accepted) == "fire hydrant"
    assert any_match(" a ", accepted) == "fire hydrant"  # an article is an answer where it is one of the right ones
    assert any_match("two red hydrants", accepted) == "2 red hydrants"
    assert any_match("", accepted) is None
    assert any_match("", ["", "the"]) is None


def test_chance_is_what_one_answer_gets_and_right_and_wrong_are_told_apart() -> None:
    rows = [
        row(1, "cat", "dog", references=["cat", "dog"], subtask="a"),
        row(2, "dog", "cow", references=["dog"], subtask="a"),
        row(3, "cow", "cow", references=["cow"], subtask="b"),
    ]
    scored = score(HEADER, rows, "any_match")
    assert (round(scored.value, 6), round(scored.chance, 6)) == (66.666667, 66.666667)
    assert scored.table["subtask a"] == {"accuracy": 0.5, "n": 2.0}
    assert scored.table["subtask b"] == {"accuracy": 1.0, "n": 1.0}


def test_predictions_keep_tolerances_and_runs_are_compared(tmp_path: Path) -> None:
    rows = [row(number, "10", "10" if number % 2 else "12", tolerance="5%") for number in range(8)]
    path = tmp_path / "mine.jsonl"
    lines = [HEADER | {"decoding": {}, "toggles": {}, "adapter": None, "classes": []}, *rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    content = read_predictions(path)
    better = [one | {"answer": "10.5"} for one in rows]
    scores = [score(HEADER, answers, "relaxed_accuracy") for answers in (rows, better)]
    assert [scored.value for scored in scores] == [50, 100]
    assert right_answers(content, scores) == [[False, True] * 4, [True] * 8]
    compared = compare(content, scores[:1], scores[1:])
    assert (compared.difference, compared.p_value) == (50, 0.125)


def test_runs_with_other_tolerances_are_not_compared() -> None:
    rows = [[row(1, "10", "10", tolerance=each)] for each in ("5%", "10%")]
    with pytest.raises(BadInputError, match="the tolerance of 'q1' is '5%' in a and '10%' in b"):
        check_paired(rows[0], rows[1], ("a", "b"))


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man's dog isn't here.", "a man 's dog is n't here"),
        ("Black-and-white photo (old), of 3 cats!", "black-and-white photo -lrb- old -rrb- of 3 cats"),
        ('A sign says "STOP"', "a sign says stop"),
        ("The U-turn at 3.5 mph costs 1,000", "the u-turn at 3.5 mph costs 1,000"),
        ("people cannot see; they're tired...", "people can not see they 're tired"),
        ("salt & pepper", "salt & pepper"),
        ("I'll bet he'd say we've won, I'm sure", "i 'll bet he 'd say we 've won i 'm sure"),
        ("Mr. Smith at 5:30 p.m. in the U.S. Capitol.", "mr. smith at 5:30 p.m. in the u.s. capitol"),
        ("...", ""),
    ],
)
def test_captions_are_split_as_the_published_scores_split_them(caption: str, words: str) -> None:
    assert caption_words(caption) == words


REFERENCES = [
    ["A black cat sleeps on the red sofa.", "A cat is lying on a couch"],
    ["Two men ride horses along the beach", "Men on horses by the sea", "two riders"],
    ["The train stands in an old station", "A train at the platform"],
]
ANSWERS = ["A cat on a red sofa", "two men ride horses along the beach", ""]


def caption_rows(answers: list[str]) -> list[dict[str, Any]]:
    said = enumerate(zip(REFERENCES, answers, strict=True))
    return [
        row(number, those[0], answer, references=those, subtask="ab"[number % 2]) for number, (those, answer) in said
    ]


@pytest.mark.parametrize("rule", CAPTION_RULES)
def test_caption_scores_are_pycocoevalcaps_to_the_last_digit(rule: str) -> None:
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider

    header, rows = HEADER | {"default_rule": rule}, caption_rows(ANSWERS)
    words = {number: [caption_words(text) for text in texts] for number, texts in enumerate(REFERENCES)}
    answers = {number: [caption_words(text)] for number, text in enumerate(ANSWERS)}
    scored = score(header, rows[::-1], rule)
    assert scored.unparsed == 1
    if rule == "cider":
        whole, each = Cider().compute_score(words, answers)
        assert (scored.raw, scored.table["overall"]["cider"]) == (whole, whole)
        assert scored.table["subtask b"]["cider"] == each[1]
        moved = [*rows[1:], rows[0]]
        assert cider_of_each(moved, [caption_words(one["answer"]) for one in moved]) == (whole, [*each[1:], each[0]])
        with pytest.raises(BadInputError, match="cider does not fit: the right answers are no captions"):
            score(HEADER, rows, rule)
    else:
        whole, _ = Bleu(4).compute_score(words, answers, verbose=0)
        assert [scored.table["overall"][f"bleu_{number}"] for number in (1, 2, 3, 4)] == whole
        assert scored.raw == whole[3]
        for some in (rows, rows[:2], rows[1:]):
            parsed = [caption_words(one["answer"]) for one in some]
            sums = [sum(column) for column in zip(*bleu_sums(some, parsed), strict=True)]
            assert bleu_of_sums(sums) == bleu_of_all(some, parsed)[3]


def test_the_best_constant_is_one_of_the_commonest_right_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    gained = {"a cat": 0.1, "a dog": 0.9}
    rows = [row(1, "", "", references=["A cat.", "A dog."]), row(2, "", "", references=["a cat"])]
    best = best_constant_caption(lambda _, parsed: Summary("x", gained[parsed[0]], 1.0, {}))
    assert best(rows, []) == 0.9
    monkeypatch.setattr(captions, "MOST_COMPARED", 3)  # three comparisons: one answer to both
    assert best(rows, []) == 0.1
    targets = [row(number, target, "", tolerance="0") for number, target in enumerate(("7", "5", "5"))]
    best = best_constant_number(number_within)
    assert best(targets, []) == pytest.approx(2 / 3)
    monkeypatch.setattr(numbers, "MOST_TRIED", 1)
    assert best(targets, []) == pytest.approx(2 / 3)


def test_captions_without_a_word_are_refused() -> None:
    header = HEADER | {"default_rule": "cider"}
    with pytest.raises(BadInputError, match="the right answers of 'q1' hold no word"):
        score(header, [row(1, "...", "a cat", references=["...", "!"])], "cider")


def test_no_digit_of_cider_depends_on_the_order_of_a_file() -> None:
    pytest.importorskip("pycocoevalcap")
    chance = random.Random(0)
    said = [
        " ".join(chance.choices(["a", "red", "cat", "on", "the", "old", "table", "by", "two", "men"], k=7))
        for _ in range(90)
    ]
    rows = [row(number, "", said[3 * number], references=said[3 * number + 1 : 3 * number + 3]) for number in range(30)]
    found = set()
    for _ in range(8):
        chance.shuffle(rows)
        found.add(summarise_cider(rows, [caption_words(one["answer"]) for one in rows]).raw)
    assert len(found) == 1


def test_an_interval_of_cider_resamples_what_each_answer_gets_in_the_whole_set() -> None:
    pytest.importorskip("pycocoevalcap")
    header, rows = HEADER | {"default_rule": "cider"}, caption_rows(ANSWERS)
    scored = score(header, rows, "cider")
    content = read_predictions_of(header, rows)
    resampled = resampled_scores(content, [scored], resamples=2_000)[:, 0]
    each = [10 * scored.table[f"subtask {name}"]["cider"] for name in "ab"]  # a: questions 0 and 2, b: question 1
    assert resampled.mean() == pytest.approx(scored.value, rel=0.05)
    assert resampled.max() == pytest.approx(max(each[1], 2 * each[0]))
    assert right_answers(content, [scored]) == []


def test_what_a_picture_adds_to_a_score_of_captions_is_all_its_questions() -> None:
    pytest.importorskip("pycocoevalcap")
    for rule in CAPTION_RULES:
        header, rows = HEADER | {"default_rule": rule}, caption_rows(ANSWERS)
        rows[1]["image_id"] = rows[0]["image_id"]
        parsed = [caption_words(one["answer"]) for one in rows]
        of_each, number = RULES[rule].sums.of_each(rows, parsed), RULES[rule].sums.number
        drawn = [of_each[:2] * 2, of_each, of_each[2:] * 2]
        possible = {number([sum(column) for column in zip(*one, strict=True)]) for one in drawn}
        scored = score(header, rows, rule)
        resampled = resampled_scores(read_predictions_of(header, rows), [scored], resamples=200)[:, 0]
        assert {round(value, 6) for value in resampled} == {round(100 * one / scored.maximum, 6) for one in possible}


def read_predictions_of(header: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    from lightning_m2pt.metrics.predictions import PredictionFile

    return PredictionFile(header, rows)
