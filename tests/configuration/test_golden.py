"""Shipped experiments resolve to what they did, and their runs keep their names."""

import json

import pytest

from experiments.configuration.cli import parse_experiment
from tests.support.golden_configurations import GOLDEN, golden_of, golden_words

ENTRIES = json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_every_shipped_experiment_is_there():
    assert list(ENTRIES) == sorted(golden_words())


@pytest.mark.parametrize("name", ENTRIES)
def test_a_shipped_experiment_is_what_it_was(name: str) -> None:
    assert golden_of(parse_experiment(golden_words()[name])) == ENTRIES[name]
