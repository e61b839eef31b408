"""Shipped experiments resolve to what they did, and their runs keep their names."""

import json

import pytest

from experiments.configuration.cli import parse_experiment
from tests.support.golden_configurations import GOLDEN, golden_of, golden_words
from tests.support.towers.real_pair import store_real_pair

ENTRIES = json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True, scope="module")
def models(tmp_path_factory):
    """The experiments of the real pair are read beside its files; here are small ones."""
    folder = tmp_path_factory.mktemp("models")
    store_real_pair(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("M2PT_MODELS", str(folder))
        yield


def test_every_shipped_experiment_is_there():
    assert list(ENTRIES) == sorted(golden_words())


@pytest.mark.parametrize("name", ENTRIES)
def test_a_shipped_experiment_is_what_it_was(name: str) -> None:
    assert golden_of(parse_experiment(golden_words()[name])) == ENTRIES[name]
