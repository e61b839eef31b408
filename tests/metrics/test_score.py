"""Scores over prediction files: reference points, pairs by key, and files that are wrong."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.mme import COGNITION, PERCEPTION, SUBTASKS
from lightning_m2pt.metrics.needs import CAPTION_RULES
from lightning_m2pt.metrics.score import RULES, Score, read_predictions, score

HEADER = {
    "format": 1,
    "benchmark": "mme",
    "template": "vicuna_v1",
    "decoding": {"max_new_tokens": 4},
    "data_revision": "0" * 64,
    "adapter": None,
    "default_rule": "mme_official",
    "toggles": {},
    "classes": [],
}


def prediction(number: int, target: str, answer: str, subtask: str = "", image_id: str = "image") -> dict[str, str]:
    return {
        "id": f"question {number}",
        "set": "mme",
        "subtask": subtask,
        "question": "?",
        "answer": answer,
        "target": target,
        "image_id": image_id,
    }


def mme(subtasks: tuple[str, ...], answers: tuple[str, str], images: int = 5) -> list[dict[str, str]]:
    """Returns predictions for (yes question, no question) of every picture; the names recur in every subtask."""
    return [
        prediction(1000 * SUBTASKS.index(subtask) + 2 * image + place, target, answers[place], subtask, f"{image}.png")
        for subtask in subtasks
        for image in range(images)
        for place, target in enumerate(("Yes", "No"))
    ]


def scored(predictions: list[dict[str, str]], rule: str = "mme_official", **header: object) -> Score:
    return score(HEADER | header, predictions, rule)


def test_mme_reference_points() -> None:
    perfect = scored(mme(SUBTASKS, ("Yes", "No")))
    assert (perfect.headline, perfect.raw, perfect.maximum, perfect.value) == ("MME", 2800, 2800, 100)
    assert perfect.table["perception"] == {"score": 2000, "maximum": 2000}
    assert perfect.table["cognition"] == {"score": 800, "maximum": 800}
    assert perfect.chance == 25
    for constant, yes_ratio in (("Yes", 1.0), ("No", 0.0)):
        always = scored(mme(SUBTASKS, (constant, constant)))
        assert (always.table["perception"]["score"], always.table["cognition"]["score"]) == (500, 200)
        assert (always.value, always.yes_ratio, always.unparsed) == (25, yes_ratio, 0)
    silent = scored(mme(SUBTASKS, ("", "I cannot tell")))
    assert (silent.raw, silent.unparsed, silent.n) == (0, 140, 140)


def test_mme_is_named_after_what_is_there() -> None:
    four = scored(mme(COGNITION, ("Yes", "No")))
    assert (four.headline, four.maximum, four.value) == ("MME[4 of 14]", 800, 100)
    assert "perception" not in four.table
    assert scored(mme(PERCEPTION, ("Yes", "No"))).headline == "MME[10 of 14]"


def test_mme_pairs_are_found_by_key_and_not_by_position() -> None:
    predictions = mme(("count", "existence"), ("Yes", "No"), images=4)
    predictions[0]["answer"] = "No"
    predictions[3]["answer"] = "maybe"
    expected = scored(predictions)
    assert expected.table["count"] == {"score": 125, "accuracy": 0.75, "accuracy_plus": 0.5, "n": 8}
    assert expected.unparsed == 1
    for seed in range(5):
        shuffled = predictions.copy()
        random.Random(seed).shuffle(shuffled)
        again = scored(shuffled)
        assert (again.raw, again.table) == (expected.raw, expected.table)


def test_mme_refuses_a_picture_without_its_pair() -> None:
    predictions = mme(("count",), ("Yes", "No"))
    with pytest.raises(BadInputError, match=r"'4\.png' of count has 1 answers"):
        scored(predictions[:-1])
    with pytest.raises(BadInputError, match="unknown MME subtask 'animals'"):
        scored([prediction(1, "Yes", "Yes", "animals")])


def test_pope_per_split_and_overall() -> None:
    predictions = [prediction(1, "yes", "Yes.", "random"), prediction(2, "no", "No.", "random")]
    predictions += [prediction(number, "no", "no", "popular") for number in range(3, 6)]
    predictions += [prediction(6, "yes", "", "popular")]
    predictions += [prediction(7, "no", "", "adversarial"), prediction(8, "yes", "Yes", "adversarial")]
    result = scored(predictions, "pope_official")
    assert [result.table[split]["accuracy"] for split in ("random", "popular", "adversarial")] == [1, 1, 0.5]
    assert result.table["overall"]["accuracy"] == 7 / 8
    assert result.value == pytest.approx(100 * 2.5 / 3)
    assert result.headline == "POPE accuracy"
    assert (result.unparsed, result.yes_ratio) == (2, 0.5)
    assert result.chance == pytest.approx(100 * (0.5 + 0.75 + 0.5) / 3)
    all_no = scored([row | {"answer": "no"} for row in predictions], "pope_official")
    assert all_no.table["overall"]["precision"] == all_no.table["overall"]["f1"] == 0


def test_words_and_closed_sets_report_chance_and_classes() -> None:
    words = scored([prediction(n, ("yes", "no", "yes")[n], ("True", "No", "?")[n]) for n in range(3)], "yes_no_words")
    assert (words.value, words.unparsed, words.yes_ratio) == (pytest.approx(200 / 3), 1, 1 / 3)
    assert words.chance == pytest.approx(200 / 3)
    assert words.parsed == {"question 0": "yes", "question 1": "no", "question 2": None}
    closed = scored(
        [prediction(n, "cat", ("a cat", "dog", "cat or dog", "cat")[n]) for n in range(4)],
        "closed_set",
        classes=["cat", "dog"],
    )
    assert (closed.value, closed.chance, closed.unparsed, closed.yes_ratio) == (50, 100, 1, None)
    assert closed.table == {"cat": {"accuracy": 0.5, "n": 4}}


def test_three_way_answers_report_chance_over_all_three() -> None:
    answers = ("Yes", "Not sure.", "No", "not sure", "a cat")
    targets = ("yes", "not sure", "no", "no", "not sure")
    words = scored([prediction(n, targets[n], answers[n]) for n in range(5)], "entailment_words")
    assert (words.value, words.chance, words.unparsed, words.yes_ratio) == (60, 40, 1, None)
    assert words.table["not sure"] == {"accuracy": 0.5, "n": 2}


def test_soft_accuracy_is_a_mean_and_chance_is_over_all_references() -> None:
    references = (["stop"] * 10, ["stop"] * 3 + ["go"] * 7, ["two"] * 2 + ["3"] * 8)
    answers = ("Stop!", "stop", "2")
    rows = [prediction(n, "any", answers[n]) | {"references": references[n]} for n in range(3)]
    result = scored(rows, "vqa_accuracy")
    assert result.value == pytest.approx(100 * (1 + 0.9 + 0.6) / 3)
    assert result.chance == pytest.approx(100 * (1 + 0.9) / 3)
    assert (result.headline, result.maximum, result.unparsed, result.yes_ratio) == ("VQA accuracy", 1, 0, None)
    assert result.table["overall"]["given_by_anybody"] == 1
    assert result.parsed == {"question 0": "stop", "question 1": "stop", "question 2": "2"}
    silent = scored(
        [row | {"answer": answer} for row, answer in zip(rows, ("", "The", "?"), strict=True)], "vqa_accuracy"
    )
    assert (silent.value, silent.unparsed) == (0, 3)


def test_a_hundred_classes_are_told_apart_in_ten_thousand_answers() -> None:
    things = ("circle", "square", "triangle", "diamond", "plus", "cross", "ring", "frame", "bar", "moon")
    colours = ("red", "green", "blue", "yellow", "purple", "cyan", "white", "black", "grey", "pink")
    classes = [f"{colour}_{thing}" for colour in colours for thing in things]
    rows = [
        prediction(
            n, classes[n % 100], f"There is a {classes[n % 100].replace('_', ' ')} in the middle of the picture."
        )
        for n in range(10_000)
    ]
    result = scored(rows, "closed_set", classes=classes)
    assert (result.value, result.chance) == (100, 1)


@pytest.mark.parametrize(
    ("predictions", "rule", "header", "expected"),
    [
        ([], "yes_no_words", {}, "no predictions"),
        ([prediction(1, "yes", "yes")], "no_rule", {}, "unknown scoring rule"),
        ([prediction(1, "yes", "yes")] * 2, "yes_no_words", {}, "'question 1' is there twice"),
        ([prediction(1, "maybe", "yes")], "yes_no_words", {}, "'question 1' is 'maybe'"),
        ([prediction(1, "cow", "cow")], "closed_set", {"classes": ["cat"]}, "'question 1' is 'cow'"),
        ([prediction(1, "cat", "cat")], "closed_set", {}, "names no classes"),
        ([prediction(1, "yes", "yes") | {"answer": 1}], "yes_no_words", {}, "prediction 1: answer"),
        ([prediction(1, "maybe", "yes")], "entailment_words", {}, "'question 1' is 'maybe'"),
        ([prediction(1, "stop", "stop")], "vqa_accuracy", {}, "'question 1' names no references"),
        ([prediction(1, "a", "a") | {"references": []}], "vqa_accuracy", {}, "prediction 1: references"),
        ([prediction(1, "a", "a") | {"references": "a"}], "vqa_accuracy", {}, "prediction 1: references"),
        ([prediction(1, "a", "a") | {"references": ["a", 1]}], "vqa_accuracy", {}, "prediction 1: references"),
    ],
)
def test_what_cannot_be_scored_is_refused(predictions: list, rule: str, header: dict, expected: str) -> None:
    with pytest.raises(BadInputError, match=expected):
        scored(predictions, rule, **header)


TARGETS = {"choice_letter": ("A", "B"), "number_within": ("7", "12")}


@given(st.lists(st.text(max_size=20), min_size=1, max_size=8), st.sampled_from(sorted(RULES)))
@settings(max_examples=60, deadline=None)
def test_any_answers_give_a_finite_score_that_json_can_hold(answers: list[str], rule: str) -> None:
    predictions = [
        prediction(2 * number + place, target, answer, "count", f"{number}.png")
        | {"references": [target] * 10, "choices": ["Yes", "No"], "tolerance": "5%"}
        for number, answer in enumerate(answers)
        for place, target in enumerate(TARGETS.get(rule, ("Yes", "No")))
    ]
    if rule in CAPTION_RULES:
        pytest.importorskip("pycocoevalcap")
    result = scored(predictions, rule, classes=["Yes", "No"], default_rule=rule)
    assert 0 <= result.value <= 100
    assert result.n == 2 * len(answers)
    text = json.dumps(result.to_json(), allow_nan=False, ensure_ascii=False)
    assert json.loads(text.encode())["raw"] == result.raw


def write(path: Path, lines: list[object]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_prediction_file_is_read_back(tmp_path: Path) -> None:
    answers = ["a\nb", "\0", "\N{GRINNING FACE}", "\ud800", "\u2028", "x" * 1_000_000]
    predictions = [prediction(number, "Yes", answer) for number, answer in enumerate(answers)]
    content = read_predictions(write(tmp_path / "mme.jsonl", [HEADER, *predictions]))
    assert content.header == HEADER
    assert list(content.predictions) == predictions


def broken(lines: list[object], ending: str = "") -> str:
    return "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines) + ending


GOOD = prediction(1, "Yes", "yes")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty"),
        (broken([HEADER, GOOD], '{"id"'), r"mme\.jsonl:3: the last line is cut off"),
        (broken(["{"]), r"mme\.jsonl:1: this is not valid JSON"),
        (broken([HEADER, "[" * 100_000]), r"mme\.jsonl:2: the JSON is nested too deeply"),
        (broken([HEADER, "[]"]), r"mme\.jsonl:2: the line is a list"),
        (broken([HEADER | {"format": 2}]), r"mme\.jsonl:1: the format is 2"),
        (broken([HEADER | {"template": "\ud800"}]), r"mme\.jsonl:1: the header holds half a character"),
        (broken([HEADER | {"decoding": {"temperature": float("nan")}}]), "NaN is no JSON number"),
        (broken([HEADER | {"benchmark": None}]), r"mme\.jsonl:1: the header has no text under 'benchmark'"),
        (broken([HEADER | {"benchmark": "../mme"}]), r"mme\.jsonl:1: benchmark: the value is '\.\./mme'"),
        (broken([GOOD]), r"mme\.jsonl:1: the format is None"),
        (broken([HEADER, GOOD, GOOD]), "'question 1' is there twice"),
        (broken([HEADER, GOOD | {"answer": None}]), r"mme\.jsonl:2: answer: the value is None"),
        (broken([HEADER, GOOD | {"references": [1]}]), r"mme\.jsonl:2: references: the value is \[1\]"),
    ],
)
def test_a_wrong_prediction_file_is_refused_with_its_line(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "mme.jsonl"
    path.write_text(content)
    with pytest.raises(BadInputError, match=expected) as caught:
        read_predictions(path)
    assert len(str(caught.value).split("\n")) <= 3
    with pytest.raises(BadInputError, match="does not exist"):
        read_predictions(tmp_path / "none.jsonl")
    with pytest.raises(BadInputError, match="this is a folder") as caught:
        read_predictions(tmp_path)
    assert "m2pt report" in str(caught.value)
