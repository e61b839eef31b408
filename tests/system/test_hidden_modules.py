"""A hidden package is found by nobody, and is what it was afterwards."""

import importlib.util
import json
import sys

import pytest

from lightning_m2pt.system.hidden_modules import hidden_module


def test_an_imported_package_comes_back() -> None:
    with hidden_module("json"):
        assert importlib.util.find_spec("json") is None
        with pytest.raises(ImportError):
            importlib.import_module("json")
    assert sys.modules["json"] is json


def test_a_package_that_is_not_there_leaves_nothing_behind() -> None:
    with pytest.raises(RuntimeError, match="inside"), hidden_module("no_such_package"):
        raise RuntimeError("inside")
    assert "no_such_package" not in sys.modules
