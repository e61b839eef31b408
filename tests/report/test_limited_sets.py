"""What tables say of sets of which fewer questions were asked: never the whole sets' mean, and how many below it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.sweep.table import SweepRow, record_of, results_table, row_of
from lightning_m2pt.commands.report import read_groups
from lightning_m2pt.metrics.means import MMAVG_MEMBERS, NEVER_A_MEMBER
from lightning_m2pt.metrics.statistics import percentile_interval
from lightning_m2pt.report.page.comparison import MEAN, Scores, method_table
from lightning_m2pt.report.tables.formats import terminal
from lightning_m2pt.report.tables.frozen_and_tuned import comparison_table, mean_of_sets, members_of
from lightning_m2pt.report.tables.groups import score_report
from lightning_m2pt.report.tables.outcome import score_line
from lightning_m2pt.runs.evaluated import Group
from tests.support.answers.evaluated_folders import vsr_questions, write_predictions
from tests.support.answers.report_verbs import records, refused

LIMITED_MEAN = "MMAvg of limited sets"
BELOW = (
    "limited sets (questions of all): vsr 20 of 1,200, snli_ve 20 of 1,200, pope 20 of 1,200, cifar10 20 of 1,200, "
    "cifar100 20 of 1,200, text_vqa 20 of 1,200"
)
"""mnist is whole."""


def answered(folder: Path, asked: int, of: int = 1200, sets: tuple[str, ...] = MMAVG_MEMBERS) -> Group:
    """Writes a run that was asked some of each set's questions, but all of mnist's, and reads it."""
    for name in sets:
        header: dict[str, Any] = {} if name == "mnist" or asked == of else {"of_questions": of}
        rule = {"default_rule": "yes_no_words"}
        write_predictions(folder, name, vsr_questions(of if name == "mnist" else asked), 0.8, **rule, **header)
    (group,) = read_groups([folder], [], [])
    return group


def swept(label: str, *groups: Group) -> SweepRow:
    scores = [{name: group.scores(name)[0].to_json() for name in group.benchmarks} for group in groups]
    return row_of(label, [(0, label, {"tuned": of, "parameters": {"percent": 1.0}}) for of in scores], "tuned", {})


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Group:
    return answered(tmp_path_factory.mktemp("limited") / "limited", 20)


@pytest.fixture(scope="module")
def less(tmp_path_factory: pytest.TempPathFactory) -> Group:
    return answered(tmp_path_factory.mktemp("less") / "less", 10)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Group:
    return answered(tmp_path_factory.mktemp("whole") / "whole", 1200)


def test_the_report_names_the_mean_and_says_below_what_it_is_of(limited: Group, whole: Group) -> None:
    report = score_report([limited])
    *sets, mean = report.records
    assert mean["set"] == mean["headline"] == LIMITED_MEAN
    assert mean["percent"] == pytest.approx(sum(record["percent"] for record in sets) / 7)
    assert BELOW in report.notes
    assert sum("limited sets" in note for note in report.notes) == 1
    assert not any(note.startswith("MMAvg:") for note in report.notes)
    assert max(map(len, terminal([report], 200).splitlines())) <= 200
    of_whole = score_report([whole])
    assert of_whole.records[-1]["set"] == "MMAvg"
    assert not any("limited" in note for note in of_whole.notes)


def test_the_mean_and_its_interval_are_of_the_same_sets(limited: Group) -> None:
    limit = "[20 of 1,200 questions]"
    names = [f"mme{limit}", f"vsr{limit}", f"other{limit}", "another", "mnist"]
    assert members_of(LIMITED_MEAN, names) == [f"vsr{limit}", "mnist"]
    assert members_of("mean of limited vsr, other, another, mnist", names) == names[1:]
    record = score_report([limited]).records[-1]
    interval = percentile_interval(mean_of_sets([limited.resampled_mean(name) for name in MMAVG_MEMBERS]))
    assert (record["percent_low"], record["percent_high"]) == pytest.approx((interval.low, interval.high))


def test_limited_and_whole_sets_are_rows_of_their_own_and_never_compared(limited: Group, whole: Group) -> None:
    report = score_report([limited, whole])
    assert [record["set"] for record in report.records[-2:]] == [LIMITED_MEAN, "MMAvg"]
    assert f"{limited.name}: {BELOW}" in report.notes
    assert Scores([limited, whole], None).mean_name == "MMAvg"
    assert Scores([limited, whole], None).record(limited, MEAN) is None


def test_a_baseline_that_was_asked_more_is_refused(
    capfd: pytest.CaptureFixture, limited: Group, whole: Group, less: Group
) -> None:
    runs = [group.runs[0].folder for group in (limited, whole, less)]
    for other in runs[1:]:
        for words in (("report", runs[0], "--against", other), ("compare", other, runs[0])):
            assert "evaluate both with the same data and the same limit" in refused(capfd, *words)
    assert len(records(capfd, "report", runs[0], "--against", runs[0])) == 8


def test_two_limits_have_a_line_each(limited: Group, less: Group) -> None:
    report = score_report([limited, less])
    assert [record["set"] for record in report.records[-2:]] == [LIMITED_MEAN] * 2
    assert f"{limited.name}: {BELOW}" in report.notes
    assert f"{less.name}: {BELOW.replace('20 of', '10 of')}" in report.notes


def test_a_mean_of_fewer_sets_is_as_short(tmp_path: Path) -> None:
    few = answered(tmp_path / "few", 20, sets=("vsr", "pope", "mnist"))
    report = score_report([few])
    assert report.records[-1]["set"] == "mean of limited vsr, pope, mnist"
    assert "limited sets (questions of all): vsr 20 of 1,200, pope 20 of 1,200" in report.notes
    assert Scores([few], None).members("mean of limited vsr, pope, mnist") == ["vsr", "pope", "mnist"]


def test_the_page_has_the_name_as_a_heading_and_the_line_below(limited: Group) -> None:
    scores = Scores([limited], None)
    table = method_table(scores, "")
    assert table.columns[-1].title == LIMITED_MEAN
    assert scores.members(LIMITED_MEAN) == scores.benchmarks
    assert BELOW in table.notes
    assert not any(note.startswith("mean:") for note in table.notes)


def test_a_sweeps_table_has_one_heading_only_where_all_rows_were_asked_the_same(
    limited: Group, less: Group, whole: Group
) -> None:
    alike = [swept("one", limited, limited), swept("other", limited)]
    table = results_table(alike)
    assert (table.columns[2].title, table.notes[1:]) == (LIMITED_MEAN, [BELOW])
    mean = sum(one.score.value for one in limited.runs[0].sets.values()) / 7
    assert (alike[0].mean_of, alike[0].values) == (LIMITED_MEAN, pytest.approx([mean, mean]))
    written = json.loads(json.dumps(record_of(alike[0])))
    assert written["mean_of"] == LIMITED_MEAN
    assert written["sets"][0] == "vsr[20 of 1,200 questions]"
    assert "mnist" in written["sets"]
    for other in (less, whole):
        table = results_table([swept("one", limited), swept("other", other)])
        assert table.columns[2].title == "mean over sets"
        assert table.notes[1] == f"one: {BELOW}"
    assert results_table([swept("one", whole)]).columns[2].title == "MMAvg"


def test_a_limited_mme_is_told_below_a_sweeps_table_and_in_no_mean() -> None:
    """Its points stand in a column of their own, whose heading says nothing of a limit."""
    parts = {"vsr": "", "mme": "260 of 2,374 questions"}
    scores = {name: {"value": 40.0, "raw": 1200.0, "part": part} for name, part in parts.items()}
    row = row_of("one", [(0, "run", {"tuned": scores, "parameters": {"percent": 1}})], "tuned", {})
    assert row.sets == ["vsr", "mme[260 of 2,374 questions]"]
    assert (row.mean_of, row.values, row.mme) == ("mean of vsr", [40.0], [1200.0])
    assert results_table([row]).notes[1:] == ["limited sets (questions of all): mme 260 of 2,374"]
    scores["mme"]["part"] = "contextual_calibration"
    row = row_of("one", [(0, "run", {"tuned": scores, "parameters": {"percent": 1}})], "tuned", {})
    assert (row.sets[1], row.mean_of) == ("mme[contextual_calibration]", "mean of vsr")


def test_the_end_of_a_training_has_the_name_and_the_line(limited: Group, whole: Group) -> None:
    scores = {name: limited.scores(name)[0] for name in limited.benchmarks}
    with_mme = {NEVER_A_MEMBER: replace(scores["vsr"], benchmark=NEVER_A_MEMBER, value=0.0)} | scores
    value = sum(one.value for one in scores.values()) / 7
    assert score_line(with_mme) == f"{value:.1f} of 100, {LIMITED_MEAN}"
    table = comparison_table(scores, scores, "m2pt")
    assert list(table.columns[0].cells)[-2:] == [LIMITED_MEAN, "all sets, chance-corrected"]
    assert list(table.columns[1].cells)[-2] == f"{value:.1f}"
    assert str(table.caption).split("\n")[1:] == [BELOW]
    of_whole = {name: one.score for name, one in whole.runs[0].sets.items()}
    assert "limited" not in str(comparison_table(of_whole, of_whole, "m2pt").caption)
