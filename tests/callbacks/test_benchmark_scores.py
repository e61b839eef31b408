"""Scores logged while tuning are those of the same questions answered afterwards."""

import csv
import json

import pytest

from callbacks.benchmark_scores import BenchmarkScores
from callbacks.loggers import METRICS_FILE
from data_modules.vsr import VSR
from experiments.configuration.cli import parse_experiment
from experiments.runs.tuning import fit
from tests.support.small_experiment import small_words


@pytest.mark.parametrize("dropout", ["0.0", "0.5"])
def test_a_score_is_logged_every_so_many_steps_and_changes_nothing(tmp_path, dropout):
    VSR.write_fake(tmp_path / "vsr")
    sets = [{"class_path": "data_modules.vsr.VSR", "init_args": {"root": str(tmp_path / "vsr"), "template": "plain"}}]
    arguments = {"benchmarks": sets, "every_n_steps": 2}
    callbacks = [{"class_path": "callbacks.benchmark_scores.BenchmarkScores", "init_args": arguments}]
    words = [*small_words(tmp_path, steps=4), "--model.method.dropout", dropout]
    plain = fit(parse_experiment([*words, "--output_root", str(tmp_path / "plain")]))
    logged = fit(parse_experiment([*words, "--trainer.callbacks", json.dumps(callbacks)]))
    with (logged / METRICS_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [row["score/vsr"] for row in rows]
    assert [bool(score) for score in scores] == [False, True, False, True]
    assert all(0 <= float(score) <= 100 for score in scores if score)
    assert (logged / "adapter" / "adapter_model.safetensors").read_bytes() == (
        plain / "adapter" / "adapter_model.safetensors"
    ).read_bytes()


def test_less_than_a_step_is_refused():
    with pytest.raises(ValueError, match="1 or more"):
        BenchmarkScores([], every_n_steps=0)
