"""Validation every so many steps and after the last, made up where a stop cut it off; it changes no tensor."""

import csv
from pathlib import Path

from callbacks.last_validation import LastValidation
from experiments.configuration.cli import parse_experiment
from experiments.runs.tuning import fit
from lightning_m2pt.storage.run_record import COMPLETED, read_run_record
from tests.support.small_experiment import fitted, small_words
from tests.tuning.test_early_stopping import files, killed

STEPS = 5


def words_of(folder: Path, *words: str) -> list[str]:
    """Returns words of a run of five steps in epochs of three, with a part to validate on."""
    validated = ("--data.validation_fraction", "0.5", "--model.method.dropout", "0.2")
    return [*small_words(folder, batch_size=4, steps=STEPS), *validated, *words]


def validated_steps(run: Path) -> list[int]:
    """Returns the steps whose rows have a validation's numbers."""
    with (run / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row.get("val/loss")]


def test_the_last_step_is_validated_and_changes_no_tensor(tmp_path, monkeypatch):
    words = words_of(tmp_path)
    _, whole = fitted(words, run=tmp_path / "whole")
    assert validated_steps(whole) == [3, 5]
    with monkeypatch.context() as patch:
        patch.setattr(LastValidation, "_make_due", lambda *_: None)
        _, without = fitted(words, run=tmp_path / "without")
    assert validated_steps(without) == [3]
    name = "adapter/adapter_model.safetensors"
    assert files(without)[name] == files(whole)[name]
    # Out of time behind its last step, and killed within the last validation: that is made up, and no step again.
    cut = tmp_path / "cut"
    killed([*words, "--save_every_n_steps", "1"], cut, "in the next step", STEPS - 1, monkeypatch)
    fit(parse_experiment([*words, "--trainer.max_time", "00:00:00:00"]), folder=cut)
    assert validated_steps(cut) == [3]
    assert COMPLETED not in read_run_record(cut)
    killed(words, cut, "in validation", STEPS, monkeypatch)
    fit(parse_experiment(words), folder=cut)
    assert read_run_record(cut)[COMPLETED]["optimizer_steps"] == STEPS
    assert files(cut) == files(whole)
