"""A prediction file's own rule and data, and what a kill or an editor leaves of a run's metrics."""

from dataclasses import replace
from pathlib import Path

import pytest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.runs.metrics_file import read_metrics
from lightning_m2pt.runs.scoring import score_under
from tests.support.answers.prediction_files import vsr_predictions, written


def test_a_file_is_scored_under_its_own_rule_and_never_against_other_data(tmp_path: Path) -> None:
    content = vsr_predictions(("yes", "no"))
    path = written(content, tmp_path / "vsr.jsonl")
    others = replace(content, header={**content.header, "data_revision": "f" * 64})
    other = written(others, tmp_path / "other" / "vsr.jsonl")
    assert [each.rule for each in score_under(path, [], path)] == [content.header["default_rule"]] == ["yes_no_words"]
    with pytest.raises(BadInputError, match=r"the data revision is .*, and ffffffff in the other"):
        score_under(path, [], other)


def test_a_last_row_that_was_cut_off_is_passed_over_and_one_before_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    assert read_metrics(path) == []
    for cut in ("2", "2,0.5,x"):
        path.write_text(f"step,loss\n1,0.25\n{cut}\n")
        assert read_metrics(path) == [(f"{path}:2", {"step": "1", "loss": "0.25"})]
        path.write_text(f"step,loss\n1,0.25\n{cut}\n3,0.5\n")
        with pytest.raises(BadInputError, match="not as many cells as the header") as caught:
            read_metrics(path)
        assert caught.value.where == f"{path}:3"
