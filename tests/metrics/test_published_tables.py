"""One answer, many readings: what the published scorers were seen to make of tricky answers, and of whole files."""

from collections.abc import Mapping

import pytest

from lightning_m2pt.metrics.mme import COGNITION, SUBTASKS
from lightning_m2pt.metrics.rule import accepts
from lightning_m2pt.metrics.rules import RULES
from lightning_m2pt.metrics.score import Score, score

MME_RULES = ("mme_official", "mme_m2pt", "mme_lmms", "mme_vlmevalkit")
POPE_RULES = ("pope_official", "pope_lmms", "pope_vlmevalkit")
READINGS = ("mme_official", "mme_m2pt", "mme_lmms", "mme_vlmevalkit", "pope_official", "pope_lmms", "vqa_words")
BOTH = "yes | no"
SHORT = {"y": "yes", "n": "no", "o": None, "B": BOTH}

# One letter a rule of READINGS: yes, no, other, both; from running the published functions.
YES_NO_TABLE = [
    ("Yes", "yyyyyyy"),
    ("no.", "nnnnnon"),
    ("NO", "nnnnynn"),
    ("No!", "nnnnyon"),
    ("No;", "nnnnyon"),
    ("Yes, there is", "yyyyyoy"),
    ("Yes, there is no doubt about it.", "yyyonoB"),
    ("There is no dog.", "ononnon"),
    ("There isn't a dog.", "ooooyoo"),
    ("I cannot tell", "onooyoo"),
    ("I do not know", "onoonoo"),
    ("Not sure", "nnnoyoo"),
    ("The answer is not yes", "oyoynoy"),
    ("The answer is no.", "ononnon"),
    ("**Yes**", "oyooyoy"),
    ("yes:", "yyyoyoy"),
    ("Yes/No", "yyyoyoB"),
    ("", "ooooyoo"),
    ("Y", "ooyoyoo"),
    ("N", "oonoyoo"),
    ("True", "ooooyoo"),
    ("False", "ooooyoo"),
    ("   Yes", "oyyyyyy"),
    ("Eyes are visible.", "yyyoyoo"),
    ("Noodles are on the table.", "nnnoyoo"),
    ("The image shows a snow scene.", "onooyoo"),
    ("It is not there. Yes it is.", "oyoynoy"),
    # MME's tool breaks at both; POPE's reads "No\nBecause" and "yes\tno" as one word each, hence yes. Ours reads what
    # stands there once newlines and tabs are spaces.
    ("No\nBecause it is dark.", "nnnnnon"),
    ("yes\tno", "yyyonoB"),
]


@pytest.mark.parametrize(("answer", "letters"), YES_NO_TABLE)
def test_yes_or_no_is_read_as_by_seven_scorers(answer: str, letters: str) -> None:
    read = {name: RULES[name].parse(answer, ("yes", "no")) for name in READINGS}
    assert read == dict(zip(READINGS, (SHORT[letter] for letter in letters), strict=True))
    assert RULES["pope_vlmevalkit"].parse(answer, ("yes", "no")) == read["mme_vlmevalkit"]


def test_lmms_eval_drops_full_stops_before_it_reads_mme() -> None:
    read = [RULES["mme_lmms"].parse(answer, ("yes", "no")) for answer in ("Y.", "...no", " n ", "....", "yn", "y n")]
    assert read == ["yes", "no", "no", None, None, None]


CLASS_RULES = ("has_word", "exact_ehub", "vqa_words", "exact", "vqa_normalised")
CIFAR_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck", "pickup_truck")
DIGIT_NAMES = tuple("0123456789")

# (answer, target, one digit a rule of CLASS_RULES: 1 is right); from running the published functions.
CLASS_TABLE = [
    ("Cat.", "cat", "11111"),
    ("A cat", "cat", "10101"),
    ("cats", "cat", "00000"),
    ("kitten", "cat", "00000"),
    ("not a cat", "cat", "10100"),
    ("dog or cat", "cat", "10100"),
    ("cat/dog", "cat", "00100"),
    ("**cat**", "cat", "11110"),
    ("fire truck", "truck", "10100"),
    ("car", "automobile", "00000"),
    ("plane", "airplane", "00000"),
    ("pickup truck", "pickup_truck", "00101"),
    ("it's a cat's face", "cat", "00100"),
    ("7.", "7", "11110"),
    ("seven", "7", "00101"),
    ("The digit seven", "7", "00100"),
    ("not 7", "7", "10100"),
    ("7 or 1", "7", "10100"),
    ("7\n1", "7", "10100"),
    ("7.0", "7", "00100"),
    ("#7", "7", "11110"),
    ("None", "0", "00101"),
    ("No. 1", "1", "10100"),
    ("07", "7", "00000"),
    ("17", "7", "00000"),
    ("seventeen", "7", "00000"),
    ("7th", "7", "00000"),
    ("VII", "7", "00000"),
    ("an 8", "8", "10101"),
]


@pytest.mark.parametrize(("answer", "target", "right"), CLASS_TABLE)
def test_class_names_and_digits_are_right_as_under_five_scorers(answer: str, target: str, right: str) -> None:
    classes = DIGIT_NAMES if target.isdigit() else CIFAR_NAMES
    found = {name: accepts(RULES[name].parse(answer, classes), target) for name in CLASS_RULES}
    assert found == dict(zip(CLASS_RULES, (digit == "1" for digit in right), strict=True))


def test_the_rules_for_class_names_differ_where_they_say_so() -> None:
    assert RULES["exact_ehub"].parse("caté", ("cat",)) == "cat"
    assert RULES["exact"].parse("caté", ("cat",)) is None
    assert RULES["vqa_words"].parse("cat, 1,000 dog-s", ("cat", "dogs", "1000")) == "cat | dogs | 1000"
    assert RULES["has_word"].parse("a_cat", ("cat",)) is None
    assert RULES["vqa_words"].parse("a_cat", ("cat",)) == "cat"
    assert RULES["has_word"].parse("a the", ("!", "the")) == "the"
    assert RULES["vqa_words"].parse("a the", ("a", "the")) is None


def header(**others: object) -> dict[str, object]:
    return {"benchmark": "any", "default_rule": "any", "classes": [], **others}


def line(name: str, subtask: str, image: str, target: str, answer: str) -> dict[str, str]:
    return {
        "id": name,
        "set": "any",
        "subtask": subtask,
        "question": "?",
        "answer": answer,
        "target": target,
        "image_id": image,
    }


IMAGES = dict.fromkeys(SUBTASKS, 20) | {"existence": 30, "count": 30, "position": 30, "color": 30, "posters": 147}
IMAGES |= {"celebrity": 170, "scene": 200, "landmark": 200, "artwork": 200, "commonsense_reasoning": 70}


def mme(answers: Mapping[str, str], rule: str) -> Score:
    """Scores a set of MME's size that answers every yes question, and every no question, with the same text."""
    rows = [
        line(f"{subtask}/{image}/{target}", subtask, str(image), target, answers[target])
        for subtask, images in IMAGES.items()
        for image in range(images)
        for target in ("Yes", "No")
    ]
    assert len(rows) == 2374
    return score(header(), rows, rule)


def sums(scored: Score) -> tuple[float, float]:
    return scored.table["perception"]["score"], scored.table["cognition"]["score"]


@pytest.mark.parametrize("rule", MME_RULES)
def test_reference_points_of_mme(rule: str) -> None:
    assert sums(mme({"Yes": "Yes", "No": "No"}, rule)) == (2000, 800)
    assert sums(mme({"Yes": "No", "No": "Yes"}, rule)) == (0, 0)
    for constant in ("yes", "No"):
        scored = mme({"Yes": constant, "No": constant}, rule)
        assert sums(scored) == (500, 200)
        assert (scored.value, scored.chance, scored.unparsed) == (25, 25, 0)
        assert scored.yes_ratio == (1 if constant == "yes" else 0)
    silent = mme({"Yes": "", "No": ""}, rule)
    assert (sums(silent), silent.unparsed, silent.yes_ratio) == ((0, 0), 2374, 0)


def test_cannot_tell_is_worth_700_points_to_m2pts_reading_alone() -> None:
    answers = {"Yes": "I cannot tell.", "No": "I cannot tell."}
    scores = {rule: mme(answers, rule) for rule in MME_RULES}
    assert {rule: sums(scored) for rule, scored in scores.items()} == {
        "mme_official": (0, 0),
        "mme_m2pt": (500, 200),
        "mme_lmms": (0, 0),
        "mme_vlmevalkit": (0, 0),
    }
    assert all(scored.unparsed == 2374 for scored in scores.values())


def test_sentences_are_worth_the_same_points_under_every_reading_of_mme() -> None:
    answers = {"Yes": "Yes, there is a dog.", "No": "No, there is a cat."}
    assert {sums(mme(answers, rule)) for rule in MME_RULES} == {(2000, 800)}
    late = {"Yes": "The answer is yes.", "No": "The answer is no."}
    assert [mme(late, rule).value for rule in MME_RULES] == [0, 100, 0, 100]


def test_mme_without_some_subtasks_is_named_so_under_every_rule() -> None:
    rows = [line(f"{name}/{target}", name, "1", target, target) for name in COGNITION for target in ("Yes", "No")]
    for rule in MME_RULES:
        assert score(header(), rows, rule).headline == "MME[4 of 14]"


def pope(answer: str | None, rule: str, splits: tuple[str, ...] = ("random", "popular", "adversarial")) -> Score:
    """Scores a balanced POPE that answers everything with one text, or everything right."""
    rows = [
        line(f"{split}/{number}", split, str(number), target, target if answer is None else answer)
        for split in splits
        for number in range(20)
        for target in (("yes", "no")[number % 2],)
    ]
    return score(header(), rows, rule)


NUMBERS = ("accuracy", "precision", "recall", "f1", "yes_ratio")


def numbers(scored: Score) -> tuple[float, ...]:
    return tuple(scored.table["overall"][name] for name in NUMBERS)


@pytest.mark.parametrize("rule", POPE_RULES)
def test_reference_points_of_pope(rule: str) -> None:
    assert numbers(pope(None, rule)) == (1, 1, 1, 1, 0.5)
    assert pope(None, rule).value == 100
    assert numbers(pope("No", rule)) == (0.5, 0, 0, 0, 0)
    assert numbers(pope("yes", rule)) == pytest.approx((0.5, 0.5, 1, 2 / 3, 1))
    assert set(pope("yes", rule).table) == {"random", "popular", "adversarial", "overall"}
    assert set(pope("yes", rule, splits=("",)).table) == {"overall"}


def test_a_dead_model_is_worth_half_of_pope_to_the_official_rule_alone() -> None:
    for answer in ("", "I cannot tell."):
        official = pope(answer, "pope_official")
        assert numbers(official) == pytest.approx((0.5, 0.5, 1, 2 / 3, 1))
        assert (official.unparsed, official.yes_ratio) == (60, 1)
        for rule in ("pope_lmms", "pope_vlmevalkit"):
            dead = pope(answer, rule)
            assert (numbers(dead), dead.value, dead.unparsed) == ((0, 0, 0, 0, 0), 0, 60)


def test_pope_where_answers_are_unparsed() -> None:
    answers = [("yes", "Yes"), ("yes", "Yes, a dog."), ("yes", "maybe"), ("no", "no"), ("no", "no dog"), ("no", "?")]
    answers += [("no", "yes"), ("no", "A cat.")]
    rows = [line(str(number), "random", "1", *pair) for number, pair in enumerate(answers)]
    lmms = score(header(), rows, "pope_lmms")
    assert numbers(lmms) == pytest.approx((2 / 8, 1 / 2, 1, 2 / 3, 2 / 8))
    assert lmms.table["overall"]["ground_truth_yes_ratio"] == 3 / 8
    assert (lmms.value, lmms.unparsed, lmms.table["overall"]["n"]) == (25, 5, 8)
    kit = score(header(), rows, "pope_vlmevalkit")
    assert numbers(kit) == pytest.approx((4 / 8, 2 / 3, 2 / 3, 2 / 3, 3 / 8))
    assert (kit.headline, kit.unparsed) == ("POPE F1", 3)
    assert kit.value == pytest.approx(200 / 3)


def test_has_word_reports_the_mean_over_classes_too() -> None:
    answers = [("cat", "a cat"), ("cat", "cat"), ("cat", "dog"), ("dog", "dog or cat")]
    rows = [line(str(number), "", "1", *pair) for number, pair in enumerate(answers)]
    scored = score(header(classes=["cat", "dog"]), rows, "has_word")
    assert (scored.value, scored.chance, scored.unparsed) == (75, 75, 0)
    assert scored.table["mean per class"]["accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert scored.parsed["3"] == "cat | dog"
