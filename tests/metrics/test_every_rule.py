"""What must hold for every rule, also for one that is added later: any text, any order, time that grows with length."""

import json
import math
import random
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_modules.cifar10 import CIFAR10
from data_modules.cifar100 import CIFAR100
from data_modules.mme import MME
from data_modules.mnist import MNIST
from data_modules.multiple_choice import MultipleChoice
from data_modules.pope import POPE
from data_modules.snli_ve import SNLIVE
from data_modules.text_vqa import TextVQA
from data_modules.vsr import VSR
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.needs import CAPTION_RULES
from lightning_m2pt.metrics.rules import RULES, fits, fitting_rules
from lightning_m2pt.metrics.score import score

CIFAR_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck", "pickup_truck")


def rows(name: str, questions: Sequence[tuple[str, str, str]], **others: object) -> list[dict[str, Any]]:
    """Returns unanswered lines for (subtask, picture, target)."""
    return [
        {
            "id": f"{name}/{number}",
            "set": name,
            "subtask": subtask,
            "question": "?",
            "answer": "",
            "target": target,
            "image_id": image,
            **others,
        }
        for number, (subtask, image, target) in enumerate(questions)
    ]


YES_NO = ("Yes", "No")
CAPTIONS = (
    "a black cat sleeps on a red sofa",
    "two men ride horses along the beach",
    "the train stands in an old station",
    "several people wait for their luggage",
)
SETS = {
    "mme": rows("mme", [(task, f"{n}.jpg", said) for task in ("count", "OCR") for n in range(3) for said in YES_NO]),
    "pope": rows("pope", [(s, f"{n}.jpg", ("yes", "no")[n % 2]) for s in ("random", "popular") for n in range(6)]),
    "vsr": rows("vsr", [("", f"{n}.jpg", ("yes", "no")[n % 2]) for n in range(7)]),
    "snli_ve": rows("snli_ve", [("", f"{n}.jpg", ("yes", "not sure", "no")[n % 3]) for n in range(8)]),
    "cifar10": rows("cifar10", [("", f"{n}", CIFAR_NAMES[n]) for n in range(len(CIFAR_NAMES))]),
    "mnist": rows("mnist", [("", f"{n}", str(n)) for n in range(10)]),
    "multiple_choice": [
        row | {"choices": ["stop", "7", "a cat", "no sign"][: 2 + number % 3]}
        for number, row in enumerate(rows("multiple_choice", [("", f"{n}", "AB"[n % 2]) for n in range(6)]))
    ],
    "text_vqa": rows("text_vqa", [("", f"{n}", "stop") for n in range(5)], references=["stop"] * 7 + ["go"] * 3),
    "numbers": rows("numbers", [("", f"{n}", ("7", "12", "-0.5")[n % 3]) for n in range(6)], tolerance="5%"),
    "captions": [
        row | {"references": [row["target"]]}
        for row in rows("captions", [("", f"{n}", caption) for n, caption in enumerate(CAPTIONS)])
    ],
}
DEFAULTS = {"captions": "cider"}
CLASSES = {"cifar10": list(CIFAR_NAMES), "mnist": [str(number) for number in range(10)]}


def header(name: str) -> dict[str, Any]:
    return {"benchmark": name, "classes": CLASSES.get(name, []), "default_rule": DEFAULTS.get(name, "")}


def sets_of(rule: str) -> list[str]:
    return [name for name, questions in SETS.items() if fits(RULES[rule], header(name), questions)]


def needs_captions(rule: str) -> None:
    """Leaves out what is tested where the extra `captions` is not installed."""
    if rule in CAPTION_RULES:
        pytest.importorskip("pycocoevalcap")


def answered(name: str, answers: Sequence[str]) -> list[dict[str, Any]]:
    """Returns a set's lines with answers, which are repeated as often as needed."""
    return [row | {"answer": answers[number % len(answers)]} for number, row in enumerate(SETS[name])]


SAYINGS = ["Yes", "no.", "No", "Not sure", "a cat", "7", "seven", "stop", "I cannot tell", "yes | no", "dog or cat"]
ODD_TEXTS = [
    *("", " ", "\n\n", "\t", "\0", "No\nBecause", "yes\tno", "yes\0", "\r\n\v\f", "\u2028", "\ufeffyes", "|", " | "),
    *("\N{GRINNING FACE}", "yes\N{VARIATION SELECTOR-16}", "\ud800", "yes\udfff", "\udc80no", "\U0010ffff"),
    *("\u202eyes\u202c", "\u0646\u0639\u0645", "ye\u0301s", "\u1e9e\u0130I\u0131", "e" + "\u0301" * 500, "\u0669", "⁷"),
]
ANY_TEXT = st.one_of(
    st.text(alphabet=st.characters(), max_size=60), st.sampled_from(ODD_TEXTS), st.sampled_from(SAYINGS)
)


@pytest.mark.parametrize("rule", RULES)
@given(st.lists(ANY_TEXT, min_size=1, max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_any_answers_in_any_order_give_one_finite_score(rule: str, answers: list[str], chosen: random.Random) -> None:
    needs_captions(rule)
    names = sets_of(rule)
    assert names, "no set of this file fits the rule: add one"
    for name in names:
        predictions = answered(name, answers)
        scored = score(header(name), predictions, rule)
        assert 0 <= scored.value <= 100
        assert 0 <= scored.chance <= 100
        assert 0 <= scored.unparsed <= scored.n == len(predictions)
        assert scored.yes_ratio is None or 0 <= scored.yes_ratio <= 1
        assert all(math.isfinite(number) for row in scored.table.values() for number in row.values())
        assert json.dumps(scored.to_json(), allow_nan=False, ensure_ascii=False).encode()
        chosen.shuffle(predictions)
        assert score(header(name), predictions, rule) == scored


@pytest.mark.parametrize("rule", RULES)
def test_perfect_answers_get_the_maximum_and_chance_is_what_a_constant_gets(rule: str) -> None:
    needs_captions(rule)
    for name in sets_of(rule):
        perfect = [row | {"answer": row["target"].replace("_", " ")} for row in SETS[name]]
        if rule in ("exact", "exact_ehub", "has_word"):
            perfect = [row | {"answer": row["target"]} for row in SETS[name]]
        scored = score(header(name), perfect, rule)
        assert (scored.value, scored.unparsed) == (pytest.approx(100, abs=1e-6 if rule in CAPTION_RULES else 0), 0)
        constants = {row["target"] for row in SETS[name]}
        values = [score(header(name), answered(name, [constant]), rule).value for constant in sorted(constants)]
        assert scored.chance == pytest.approx(max(values))


PIECES = ("yes ", "no.", "isn't ", "x", "1,", "cat", "- ", "no contradiction ")
SHORT, LONG = 250_000, 1_000_000


def reading_seconds(rule: str, answers: tuple[str, ...], text: str) -> float:
    """Returns the least of two process times of reading a text."""
    times = []
    for _ in range(2):
        start = time.process_time()
        RULES[rule].parse(text, answers)
        if (says_nothing := RULES[rule].says_nothing) is not None:
            says_nothing(text)
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.parametrize("rule", RULES)
def test_a_megabyte_is_read_in_time_that_grows_with_its_length(rule: str) -> None:
    answers = RULES[rule].needs(header(sets_of(rule)[0]), SETS[sets_of(rule)[0]])
    for piece in PIECES:
        text = (piece * (LONG // len(piece) + 1))[:LONG]
        short, long = (reading_seconds(rule, answers, text[:length]) for length in (SHORT, LONG))
        # Four times the text; quadratic time would be 16 times as long, and minutes.
        assert long < 9 * max(short, 0.01), f"{piece!r}: {short:.3f} s, {long:.3f} s"


@given(st.sampled_from(sorted(RULES)), st.sampled_from(sorted(SETS)))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_rule_fits_or_says_which_rules_do(rule: str, name: str) -> None:
    predictions = answered(name, ["Yes"])
    fitting = fitting_rules(header(name), predictions)
    assert any(name in RULES[other].default_of for other in fitting) or name in ("numbers", "captions")
    if rule in fitting:
        needs_captions(rule)
        assert score(header(name), predictions, rule).rule == rule
    else:
        with pytest.raises(BadInputError, match=f"{rule} does not fit") as caught:
            score(header(name), predictions, rule)
        assert caught.value.hint == f"rules that fit this set: {', '.join(fitting)}"
        assert len(str(caught.value).split("\n")) == 3


def test_the_sets_and_the_rules_agree_on_defaults_and_every_rule_has_a_line_of_help() -> None:
    modules = (CIFAR10, CIFAR100, MME, MNIST, MultipleChoice, POPE, SNLIVE, TextVQA, VSR)
    defaults = {name: rule for rule, named in RULES.items() for name in named.default_of}
    assert {module.name: module.rules[0] for module in modules} == defaults
    assert all(rule.about and "\n" not in rule.about for rule in RULES.values())
