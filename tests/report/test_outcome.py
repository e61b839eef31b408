"""The last lines of a training and an evaluation, by value."""

from pathlib import Path

import numpy
import pytest

from lightning_m2pt.metrics.predictions import PredictionFile
from lightning_m2pt.metrics.score import Score
from lightning_m2pt.report.tables.frozen_and_tuned import comparison_table
from lightning_m2pt.report.tables.outcome import (
    UNKNOWN,
    asking_line,
    difference_line,
    gains_of,
    last_lines,
    next_command,
    score_line,
)
from lightning_m2pt.report.tables.scores import score_table
from lightning_m2pt.report.tables.selection import selection_notes
from lightning_m2pt.storage.run_record import CHOSEN_BY_SETS


def score(name: str, value: float, maximum: float = 1.0) -> Score:
    return Score(name, "rule", "accuracy", value, value / 100, maximum, 25.0, 1000, 0, 0.5, {}, {})


FROZEN = {"vsr": score("vsr", 50.0), "pope": score("pope", 60.0), "mme": score("mme", 10.0, 800.0)}
TUNED = {"vsr": score("vsr", 60.5), "pope": score("pope", 62.0), "mme": score("mme", 20.0, 800.0)}


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("vsr", "pope", "mme"), "61.2 of 100, mean of vsr, pope"),
        (("vsr", "mme"), "60.5 of 100, vsr (accuracy)"),
        (("mme",), "20.0 of 100, mme (accuracy)"),
    ],
)
def test_the_score_is_the_mean_of_the_sets_but_mme(names: tuple[str, ...], line: str) -> None:
    assert score_line({name: TUNED[name] for name in names}) == line


def test_the_difference_has_the_paired_interval_of_the_same_sets() -> None:
    spread = numpy.linspace(0.0, 1.0, 1001)
    gains = {"vsr": 10.0 + spread, "pope": 2.0 + spread, "mme": 1000.0 + spread}
    line = difference_line(FROZEN, TUNED, gains)
    assert line == "+6.2 to the untouched model (55.0), 95% interval +6.0 to +7.0"
    around = {name: spread - 0.5 for name in gains}
    assert difference_line(FROZEN, TUNED, around).endswith("95% interval -0.5 to +0.5: inside the noise")
    assert difference_line(None, TUNED, None) == UNKNOWN


def test_gains_are_those_of_the_questions() -> None:
    rows = [
        {"id": str(number), "image_id": str(number), "subtask": "s", "answer": "yes", "target": "yes"}
        for number in range(20)
    ]
    right, wrong = ({row["id"]: said for row in rows} for said in ("yes", "no"))
    answered = PredictionFile({"benchmark": "vsr"}, rows)
    before = Score("vsr", "yes_no_words", "accuracy", 0.0, 0.0, 1.0, 50.0, 20, 0, 0.0, {}, wrong)
    after = Score("vsr", "yes_no_words", "accuracy", 100.0, 1.0, 1.0, 50.0, 20, 0, 1.0, {}, right)
    gains = gains_of({"vsr": before}, {"vsr": after}, {"vsr": answered})
    assert gains["vsr"].min() == gains["vsr"].max() == 100.0


def test_the_next_command_is_one_that_a_shell_takes() -> None:
    run, frozen = Path("out puts/run"), Path("outputs/frozen/1a")
    assert next_command(run, frozen, ["a", "b"]) == "m2pt evaluate --run 'out puts/run' --knock-out a"
    assert next_command(run, frozen, ["a"]) == "m2pt compare outputs/frozen/1a 'out puts/run'"
    assert next_command(run, None, []) == "m2pt report 'out puts/run'"
    assert asking_line(run) == "ask it       m2pt ask 'out puts/run' PICTURE QUESTION"
    lines = last_lines("1.0 of 100, vsr", "none", run, "m2pt report x")
    assert [line[:13] for line in lines] == ["score        ", "difference   ", "where        ", "try next     "]


def test_tables_of_80_columns_leave_out_how_answers_were_read() -> None:
    wide, narrow = (comparison_table(FROZEN, TUNED, "m2pt", None, width) for width in (120, 80))
    assert [column.header for column in wide.columns[-3:]] == ["n", "unparsed", "yes said"]
    assert [column.header for column in narrow.columns[-2:]] == ["chance", "n"]
    assert [list(column.cells) for column in wide.columns[:6]] == [list(column.cells) for column in narrow.columns]
    headers = [column.header for column in score_table(list(TUNED.values()), 80).columns]
    assert headers == ["set", "rule", "score", "chance", "n", "unparsed"]
    assert list(score_table(list(TUNED.values()), 80).columns[5].cells) == ["0", "0", "0"]


def test_sets_that_ended_a_run_or_chose_its_adapter_are_named_once() -> None:
    chosen = {"step": 120, "steps": 300, "by": "score/vsr", "value": 0.5}
    held_out = "which an evaluation set is not for: that score is no held-out one"
    assert selection_notes("m2pt", [{}], {}) == []
    assert selection_notes("m2pt", [{}], {CHOSEN_BY_SETS: ["pope"]}) == [
        f"m2pt: chosen by the score on pope, {held_out}"
    ]
    notes = selection_notes(
        "m2pt", [{"adapter_chosen": chosen}, {"adapter_chosen": chosen}], {CHOSEN_BY_SETS: ["pope"]}
    )
    assert notes == [
        "m2pt: adapter of step 120 of 300, best score/vsr",
        f"m2pt: chosen by the score on pope, vsr, {held_out}",
    ]
