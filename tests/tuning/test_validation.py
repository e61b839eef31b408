"""Validation every so many steps and after the last, made up where a stop cut it off; it changes no tensor."""

import csv
import math
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.last_validation import LastValidation
from experiments.configuration.cli import parse_experiment
from experiments.runs.tuning import fit
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.run_record import COMPLETED, read_run_record
from tests.support.small_experiment import fitted, small_words
from tests.tuning.test_early_stopping import files, killed
from tests.tuning.test_training import EXACT

STEPS = 5


def words_of(folder: Path, *words: str) -> list[str]:
    """Returns words of a run of five steps in epochs of three, with a part to validate on."""
    validated = ("--data.validation_fraction", "0.5", "--model.method.dropout", "0.2")
    return [*small_words(folder, batch_size=4, steps=STEPS), *validated, *words]


def rows_of(run: Path) -> list[dict[str, str]]:
    """Returns the rows of a run's table."""
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def validated_steps(run: Path) -> list[int]:
    """Returns the steps whose rows have a validation's numbers."""
    return [int(row["step"]) for row in rows_of(run) if row.get("val/loss")]


def test_an_interval_counts_steps_over_all_epochs_whatever_the_split(tmp_path, monkeypatch):
    """Epochs have three steps; stopped at a validation and gone on with another split, none is lost or new."""
    words = words_of(tmp_path, "--validate_every_n_steps", "2", "--model.method.dropout", "0.0", *EXACT)
    _, whole = fitted(words, run=tmp_path / "whole")
    assert validated_steps(whole) == [2, 4, 5]
    split = [*words, "--data.micro_batch_size", "2"]
    cut = tmp_path / "cut"
    killed([*split, "--save_every_n_steps", "1"], cut, "in validation", 4, monkeypatch)
    fit(parse_experiment([*words, "--data.micro_batch_size", "1"]), folder=cut)
    assert validated_steps(cut) == [2, 4, 5]
    for row, same in zip(rows_of(cut), rows_of(whole), strict=True):
        assert float(row["val/loss"] or 0) == pytest.approx(float(same["val/loss"] or 0), rel=1e-6)


def test_two_intervals_are_refused(tmp_path):
    words = words_of(tmp_path, "--validate_every_n_steps", "2")
    for key, value in (("val_check_interval", "2"), ("check_val_every_n_epoch", "2")):
        with pytest.raises(BadInputError, match=f"trainer.{key}: validate_every_n_steps says already"):
            parse_experiment([*words, f"--trainer.{key}", value])


@pytest.mark.parametrize(
    ("doing", "sanity_checking", "value", "kept"),
    [
        (TrainerFn.FITTING, False, 0.5, {"val/loss": 0.5}),
        (TrainerFn.FITTING, True, 0.5, {}),
        (TrainerFn.VALIDATING, False, 0.5, {}),
        (TrainerFn.FITTING, False, math.inf, {}),
    ],
)
def test_what_is_kept_was_measured_by_a_training_run_after_a_step(doing, sanity_checking, value, kept):
    trainer, callback = Mock(sanity_checking=sanity_checking, precision="32-true", global_step=3), LastValidation()
    trainer.state.fn, trainer.callback_metrics = doing, {"val/loss": torch.tensor(value), "train/loss": 1.0}
    callback.on_validation_end(trainer, Mock())
    assert (callback.measured, callback.step) == (kept, 3 if doing == TrainerFn.FITTING and not sanity_checking else 0)


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
