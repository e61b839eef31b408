"""Intervals and tests on invented answers: known values, known distributions, and questions that do not match."""

import time

import numpy
import pytest
from scipy.stats import binomtest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics import statistics
from lightning_m2pt.metrics.mme import SUBTASKS
from lightning_m2pt.metrics.needs import CAPTION_RULES
from lightning_m2pt.metrics.predictions import PredictionFile, check_paired
from lightning_m2pt.metrics.rules import RULES
from lightning_m2pt.metrics.score import Score, score
from lightning_m2pt.metrics.statistics import (
    Interval,
    compare,
    mcnemar,
    mean_and_deviation,
    mean_of_runs,
    percentile_interval,
    resampled_scores,
)

OTHER = {"yes": "no", "no": "yes"}
Rows = list[dict[str, str]]


def questions(number: int, subtasks: tuple[str, ...] = ("",), pictures: int | None = None) -> Rows:
    """Yes and no questions in turn; ``pictures`` of them per subtask, or one picture a question."""
    return [
        {
            "id": f"{subtask} {index}",
            "set": "any",
            "subtask": subtask,
            "question": "?",
            "answer": "",
            "target": ("yes", "no")[index % 2],
            "image_id": f"{index % pictures if pictures else index}.png",
        }
        for subtask in subtasks
        for index in range(number)
    ]


def asked(rows: Rows) -> PredictionFile:
    return PredictionFile({"benchmark": "any", "classes": []}, rows)


def answered(rows: Rows, share: float, seed: int, benchmark: str = "vsr", rule: str = "yes_no_words") -> Score:
    generator = numpy.random.default_rng(seed)
    lines = [{**row, "answer": row["target"] if generator.random() < share else OTHER[row["target"]]} for row in rows]
    return score({"benchmark": benchmark, "classes": []}, lines, rule)


def mme_rows(pictures: int, subtasks: tuple[str, ...] = SUBTASKS) -> Rows:
    rows = questions(2 * pictures, subtasks)
    return [{**row, "image_id": f"{int(row['image_id'][:-4]) // 2}.png"} for row in rows]


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (0, 1), (1, 0), (5, 5), (3, 12), (40, 21), (700, 610)])
def test_mcnemar_is_the_binomial_test_on_discordant_pairs(only_first, only_second):
    first = [True] * only_first + [False] * only_second + [True] * 7 + [False] * 3
    second = [False] * only_first + [True] * only_second + [True] * 7 + [False] * 3
    discordant = only_first + only_second
    expected = binomtest(only_first, discordant, 0.5).pvalue if discordant else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-12)


def test_an_interval_on_many_questions_is_the_normal_one():
    rows = questions(4000)
    scored = answered(rows, 0.7, seed=1)
    interval = percentile_interval(resampled_scores(asked(rows), [scored])[:, 0])
    half = 1.959964 * (scored.value * (100 - scored.value) / 4000) ** 0.5
    assert interval.low == pytest.approx(scored.value - half, abs=0.1)
    assert interval.high == pytest.approx(scored.value + half, abs=0.1)


def test_draws_are_repeatable_and_follow_the_seed():
    rows = questions(60)
    scored = answered(rows, 0.7, seed=1)
    first = resampled_scores(asked(rows), [scored], resamples=50)
    assert numpy.array_equal(first, resampled_scores(asked(rows), [scored], resamples=50))
    assert not numpy.array_equal(first, resampled_scores(asked(rows), [scored], resamples=50, seed=1))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rows = questions(200)
    covered = 0
    for seed in range(200):
        interval = percentile_interval(resampled_scores(asked(rows), [answered(rows, 0.7, seed)], resamples=1000)[:, 0])
        covered += interval.low <= 70 <= interval.high
    assert 180 <= covered <= 198


def test_a_run_beside_itself_is_inside_the_noise():
    rows = questions(300)
    scored = answered(rows, 0.6, seed=1)
    same = compare(asked(rows), [scored], [scored])
    assert (same.difference, same.interval, same.p_value) == (0, Interval(0, 0), 1)
    assert same.verdict == "inside the noise"


def test_a_paired_interval_is_narrower_than_the_two_single_ones_and_its_verdict_has_a_direction():
    rows = questions(1000)
    weak = answered(rows, 0.7, seed=1)
    lines = [{**row, "answer": weak.parsed[row["id"]]} for row in rows]
    for line in [line for line in lines if line["answer"] != line["target"]][:20]:
        line["answer"] = line["target"]
    strong = score({"benchmark": "vsr", "classes": []}, lines, "yes_no_words")
    gain = compare(asked(rows), [weak], [strong])
    assert gain.difference == pytest.approx(2.0)
    # Only 20 questions differ, all to one side: binomial, 2 +- 1.96 x 100 sqrt(0.02 x 0.98 / 1000).
    assert gain.interval.low == pytest.approx(1.2, abs=0.15)
    assert gain.interval.high == pytest.approx(2.9, abs=0.15)
    assert gain.p_value == pytest.approx(2 / 2**20)
    assert (gain.verdict, compare(asked(rows), [strong], [weak]).verdict) == ("better", "worse")


@pytest.mark.parametrize("benchmark", ["pope", "snli_ve", "vsr", "text_vqa"])
def test_pictures_are_resampled_as_a_whole(benchmark):
    """Twenty questions of one picture share its fate: the interval is that of the pictures, not of the questions."""
    half = {}
    for pictures in (100, None):
        rows = questions(1000, ("random", "popular"), pictures)
        if pictures is None:
            rows = [{**row, "image_id": row["id"]} for row in rows]
        lines = [
            {**row, "answer": row["target"] if index % 100 < 50 else OTHER[row["target"]]}
            for index, row in enumerate(rows)
        ]
        scored = score({"benchmark": benchmark, "classes": []}, lines, "pope_official")
        interval = percentile_interval(resampled_scores(asked(lines), [scored])[:, 0])
        half[pictures] = (interval.high - interval.low) / 2
    assert half[100] == pytest.approx(1.96 * 100 * 0.5 / 100**0.5, abs=0.5)
    assert half[None] == pytest.approx(1.96 * 100 * 0.5 / 2000**0.5, abs=0.2)


@pytest.mark.parametrize(
    ("rows", "benchmark", "rule"),
    [
        (mme_rows(12, ("count", "OCR")), "mme", "mme_official"),
        (questions(60, ("random", "popular", "adversarial"), pictures=10), "pope", "pope_official"),
        (questions(80), "vsr", "yes_no_words"),
    ],
    ids=["mme", "pope", "vsr"],
)
def test_the_short_form_is_the_rule_recomputed(monkeypatch, rows, benchmark, rule):
    runs = [answered(rows, share, seed, benchmark, rule) for share, seed in ((0.7, 1), (0.8, 2))]
    short = resampled_scores(asked(rows), runs)
    monkeypatch.setattr(statistics, "short_forms", lambda marked, design: [])
    slow = resampled_scores(asked(rows), runs)
    assert (len(short), len(slow)) == (statistics.RESAMPLES, statistics.RESAMPLES_BY_RULE)
    for run in range(2):
        deviation = short[:, run].std()
        assert slow[:, run].mean() == pytest.approx(short[:, run].mean(), abs=5 * deviation / len(slow) ** 0.5)
        assert slow[:, run].std() == pytest.approx(deviation, rel=0.15)
    assert numpy.corrcoef(slow.T)[0, 1] == pytest.approx(numpy.corrcoef(short.T)[0, 1], abs=0.12)


def test_every_resample_of_mme_has_all_subtasks():
    rows = [*mme_rows(30, ("count",)), *mme_rows(1, ("OCR",))]
    perfect = answered(rows, 1.0, 1, "mme", "mme_official")
    assert percentile_interval(resampled_scores(asked(rows), [perfect])[:, 0]) == Interval(100, 100)


def test_a_rule_that_is_no_mean_is_recomputed():
    rows = questions(100)
    scored = answered(rows, 0.8, seed=3, rule="pope_vlmevalkit")
    assert scored.headline == "POPE F1"
    resampled = resampled_scores(asked(rows), [scored])
    assert len(resampled) == statistics.RESAMPLES_BY_RULE
    generator = numpy.random.default_rng(0)
    values = []
    for _ in range(1000):
        drawn = [rows[at] for at in generator.integers(len(rows), size=len(rows))]
        said = [(scored.parsed[row["id"]], row["target"]) for row in drawn]
        wrong = said.count(("yes", "no")) + said.count(("no", "yes"))
        values.append(200 * said.count(("yes", "yes")) / (2 * said.count(("yes", "yes")) + wrong))
    assert resampled.mean() == pytest.approx(numpy.mean(values), abs=0.6)
    assert resampled.std() == pytest.approx(numpy.std(values), rel=0.15)


MEANS = [name for name in RULES if name not in ("pope_vlmevalkit", "vqa_accuracy")]
NUMBERS = {"yes": "7", "no": "12"}


@pytest.mark.parametrize("rule", MEANS)
def test_every_rule_but_f1_has_a_short_form(rule):
    benchmark = rule.split("_")[0]
    rows = mme_rows(6) if benchmark == "mme" else questions(60, ("random", "popular"), pictures=10)
    header = {"benchmark": benchmark, "classes": ["yes", "no"], "default_rule": rule}
    if rule in CAPTION_RULES:
        pytest.importorskip("pycocoevalcap")
    if rule in ("any_match", *CAPTION_RULES):
        rows = [{**row, "references": [row["target"], "perhaps not"]} for row in rows]
    if rule in ("relaxed_accuracy", "number_within"):
        rows = [{**row, "target": NUMBERS[row["target"]], "tolerance": "5%"} for row in rows]
    if benchmark == "choice":
        rows = [{**row, "target": "AB"[row["target"] == "no"], "choices": ["yes", "no"]} for row in rows]
    lines = [{**row, "answer": row["target"] if index % 3 else "perhaps"} for index, row in enumerate(rows)]
    scored = score(header, lines, rule)
    resampled = resampled_scores(PredictionFile(header, lines), [scored])
    assert len(resampled) == statistics.RESAMPLES
    assert resampled.mean() == pytest.approx(scored.value, abs=1)


def test_ten_thousand_resamples_of_the_largest_sets_take_seconds():
    rows = questions(3000, ("random", "popular", "adversarial"), pictures=500)
    runs = [answered(rows, share, seed, "pope", "pope_official") for share, seed in ((0.8, 1), (0.81, 2))]
    started = time.monotonic()
    assert compare(asked(rows), runs[:1], runs[1:]).p_value is not None
    assert time.monotonic() - started < 20  # about one second on a free core


def test_seeds_are_resampled_beside_questions():
    rows = questions(2000)
    alike = [answered(rows, 0.7, seed=1)] * 4
    apart = [answered(rows, share, seed) for seed, share in enumerate((0.6, 0.65, 0.75, 0.8))]
    widths = []
    for runs in (alike, apart):
        interval = percentile_interval(mean_of_runs(resampled_scores(asked(rows), runs)))
        widths.append(interval.high - interval.low)
    assert widths[0] == pytest.approx(2 * 1.96 * 100 * (0.7 * 0.3 / 2000) ** 0.5, abs=0.3)
    assert widths[1] > 3 * widths[0]
    assert compare(asked(rows), apart, alike).p_value is None
    # Two groups' seeds are drawn apart: four that differ may differ by chance from four of the same scores.
    itself = compare(asked(rows), apart, apart)
    assert itself.interval.high - itself.interval.low > 10
    assert mean_and_deviation([80, 82, 84]) == (82, 2)
    assert mean_and_deviation([80]) == (80, None)


def test_soft_accuracy_has_an_interval_and_no_right_or_wrong():
    rows = [
        {**row, "answer": "cat", "references": ["cat"] * (index % 4) + ["dog"] * (10 - index % 4)}
        for index, row in enumerate(questions(200))
    ]
    scored = score({"benchmark": "text_vqa", "classes": []}, rows, "vqa_accuracy")
    itself = compare(asked(rows), [scored], [scored])
    assert itself.p_value is None
    interval = percentile_interval(resampled_scores(asked(rows), [scored])[:, 0])
    assert interval.low < scored.value < interval.high


def test_runs_on_other_questions_are_refused_by_name():
    rows = questions(4)
    names = ("runs/a", "runs/b")
    check_paired(rows, rows[::-1], names)
    with pytest.raises(BadInputError, match="the question ' 3' of runs/a is not among those of runs/b"):
        check_paired(rows, rows[:3], names)
    with pytest.raises(BadInputError, match="the question ' 3' of runs/b is not among those of runs/a"):
        check_paired(rows[:3], rows, names)
    with pytest.raises(BadInputError, match="the target of ' 0' is 'yes' in runs/a and 'no' in runs/b"):
        check_paired(rows, [{**rows[0], "target": "no"}, *rows[1:]], names)
    few = answered(rows[:3], 0.5, 1)
    with pytest.raises(BadInputError, match="no answer to ' 3'"):
        compare(asked(rows), [answered(rows, 0.5, 1)], [few])
    with pytest.raises(BadInputError, match="answers ' 3', which was not asked"):
        compare(asked(rows[:3]), [few], [answered(rows, 0.5, 1)])
    with pytest.raises(BadInputError, match="the rules differ: yes_no_words and pope_official"):
        compare(asked(rows), [answered(rows, 0.5, 1)], [answered(rows, 0.5, 1, rule="pope_official")])
