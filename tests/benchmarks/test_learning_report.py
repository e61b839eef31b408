"""The learning tables' statistics, on invented scores."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.learning import report as learning_report
from benchmarks.learning.domain import summarise
from benchmarks.learning.report import table_of, verdict, write_report
from benchmarks.report.cells import Cell, difference
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.score import Score
from lightning_m2pt.report.tables.frozen_and_tuned import comparison_table

SETS = ("mme", "vsr", "snli_ve", "pope", "cifar10", "cifar100", "mnist", "text_vqa")


def scores(value: float, **others: float) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "value": others.get(name, value),
            "raw": value,
            "maximum": 1.0,
            "chance": 25.0,
            "n": 1000,
            "unparsed": 0,
            "yes_ratio": None,
        }
        for name in SETS
    }


def content(methods: dict[str, list[float]], frozen: float = 50.0) -> dict[str, Any]:
    return {
        "frozen": scores(frozen),
        "methods": {
            name: {
                "parameters": {"trained": 10, "percent": 0.1},
                "runs": [{"seed": seed, "tuning_seconds": 1.0, **scores(value)} for seed, value in enumerate(values)],
            }
            for name, values in methods.items()
        },
    }


def test_a_cell_knows_deviation_error_and_bound() -> None:
    cell = Cell((80.0, 82.0, 84.0))
    assert cell.deviation == pytest.approx(2.0)
    assert cell.error == pytest.approx(2.0 / 3**0.5)
    # By hand: Student's quantile at two degrees is 4.3027; seeds 4 / 3, questions 82 x 18 / 1000.
    assert cell.lower_bound(1000) == pytest.approx(82 - 4.3027 * (4 / 3 + 1.476) ** 0.5, abs=1e-3)
    assert math.isnan(Cell((80.0,)).lower_bound(1000))
    assert str(cell) == "82.0 ± 2.0"
    assert str(Cell((80.0,))) == "80.0"


def test_missed_gates_are_said() -> None:
    gates = [
        {"name": "visual relation", "figure": 0.873, "threshold": 0.9, "verdict": "open"},
        {"name": "text skill, mean over all types", "figure": 0.96, "threshold": 0.95, "verdict": "passed"},
    ]
    (sentence, _) = learning_report.missed_gates({"gates": {"gates": gates}})
    assert "visual relation 0.873 of 0.90" in sentence
    assert "text skill" not in sentence
    assert learning_report.missed_gates({"gates": {"gates": gates[1:]}}) == []


def test_differences_are_welchs_and_single_seeds_give_no_verdict() -> None:
    from scipy.stats import ttest_ind

    first, second = (81.0, 84.0, 86.0, 83.0), (75.0, 79.0, 74.0)
    value, half = difference(Cell(first), Cell(second))
    low, high = ttest_ind(first, second, equal_var=False).confidence_interval()
    assert (value - half, value + half) == pytest.approx((low, high))
    assert math.isnan(difference(Cell((80.0,)), Cell((70.0,)))[1])
    assert verdict([(5.0, 1.0), (4.0, 1.0)]) == "on both"
    assert verdict([(5.0, 1.0), (0.5, 1.0)]) == "**one backbone only**"
    assert verdict([(5.0, 1.0), (-5.0, 1.0)]) == "**opposite**"
    assert verdict([(0.5, 1.0), (-0.5, 1.0)]) == "not clear on either"
    assert verdict([(5.0, 1.0), (4.0, math.nan)]) == "one seed: no verdict"


def test_the_mean_has_seven_members_and_the_corrected_one_all_sets() -> None:
    invented = content({"m2pt_base": [80.0, 82.0]})
    invented["frozen"] = scores(50.0, mme=90.0)
    row = table_of(invented)["frozen"]
    assert row["MMAvg"].mean == pytest.approx(50.0)
    assert row["chance-corrected"].mean == pytest.approx((7 * 100 / 3 + 100 * 65 / 75) / 8)


def test_the_report_marks_what_holds_on_one_backbone_only(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no learning run"):
        write_report(tmp_path)
    first = content({"m2pt_base": [80.0, 80.5, 81.0], "projector": [70.0, 70.5, 71.0], "full": [97.0, 97.5, 98.0]})
    second = content({"m2pt_base": [70.0, 70.5, 71.0], "projector": [70.0, 70.4, 71.2]}, frozen=60.0)
    (tmp_path / "learning_testbed.json").write_text(json.dumps(first))
    write_report(tmp_path)
    assert "Measured on the backbone `testbed` only" in (tmp_path / "learning.md").read_text()
    (tmp_path / "learning_testbed_patch12.json").write_text(json.dumps(second))
    write_report(tmp_path)
    report = (tmp_path / "learning.md").read_text()
    assert "| M2PT - projector | +10.0 ± 1.1 | -0.0 ± 1.3 | **one backbone only** |" in report
    assert "| M2PT - frozen | +30.5 ± 1.2 | +10.5 ± 1.2 | on both |" in report
    assert "full tuning - M2PT" not in report
    assert "MMAvg, trained methods: best (full tuning) minus weakest (projector) 27.0 points, 54.0 times" in report
    assert "Not above chance: none." in report


def test_the_share_of_a_domain_is_over_all_questions() -> None:
    chance = {"a": 0.5, "b": 0.0}
    aligned = {"a": [True, False], "b": [False, False]}
    tuned = {"everything": {"a": [True, True], "b": [True, False]}, "vision alone": aligned, "language alone": aligned}
    result = summarise(chance, aligned, tuned)
    assert (result["chance"], result["aligned"], result["everything"]) == (0.25, 0.25, 0.75)
    assert result["share"] == 0.0
    assert result["by_type"]["b"] == {
        "n": 2,
        "chance": 0.0,
        "aligned": 0.0,
        "everything": 0.5,
        "vision alone": 0.0,
        "language alone": 0.0,
    }


def score(name: str, value: float) -> Score:
    return Score(name, "rule", "accuracy", value, value / 100, 1.0, 25.0, 1000, 0, None, {}, {})


def rows_of(names: tuple[str, ...]) -> list[str]:
    table = comparison_table({name: score(name, 50) for name in names}, {name: score(name, 75) for name in names}, "x")
    return [str(cell) for cell in table.columns[0].cells]


def test_the_comparison_names_its_mean_after_its_members() -> None:
    assert rows_of(SETS)[-2:] == ["MMAvg", "all sets, chance-corrected"]
    assert rows_of(("mme", "vsr", "pope"))[-2:] == ["mean of vsr, pope", "all sets, chance-corrected"]
    assert rows_of(("mme",)) == ["mme", "all sets, chance-corrected"]
