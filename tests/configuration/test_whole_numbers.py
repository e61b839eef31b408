"""A whole number stays one where a setting also takes a share, in whichever order its type names the two."""

import inspect
import typing
from typing import Optional, Union

import pytest
from lightning.pytorch import Trainer

from experiments.configuration.cli import parse_experiment

BASE = ["--config", "m2pt_base"]


KEYS = ("limit_train_batches", "overfit_batches")


@pytest.fixture(params=["int first", "float first"])
def trainer_of_either_order(request, monkeypatch):
    """Of equal unions ``typing`` makes the one that was asked for first, whatever is asked for later."""
    for forget in typing._cleanups:
        forget()
    first, second = (int, float) if request.param == "int first" else (float, int)
    annotations = inspect.unwrap(Trainer.__init__).__annotations__
    for key in KEYS:
        monkeypatch.setitem(annotations, key, Optional[Union[first, second]])  # noqa: UP007, UP045
    assert typing.get_args(annotations[KEYS[0]])[:2] == (first, second)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("text", "expected"), [("3", 3), ("1", 1), ("1.0", 1.0), ("0.5", 0.5)])
def test_a_count_stays_a_count_and_a_share_a_share(trainer_of_either_order, key, text, expected):
    for words in ([f"--trainer.{key}", text], ["--trainer", f"{{{key}: {text}}}"]):
        experiment = parse_experiment([*BASE, *words])
        found = experiment.config["trainer"][key], experiment.trainer_values[key]
        assert [(type(value), value) for value in found] == [(type(expected), expected)] * 2


def test_a_number_that_has_to_be_a_float_is_one():
    experiment = parse_experiment([*BASE, "--model.optimizer.weight_decay", "1"])
    assert repr(experiment.config["model"]["optimizer"]["weight_decay"]) == "1.0"
