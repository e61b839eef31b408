"""lmms-eval's call form: requests as its tasks make them, and a stand-in for its base class where it is not installed.

Both follow lmms-eval 0.7.3: ``api/instance.py`` (a request's ``args``), ``api/task.py`` (their order) and
``api/model.py`` (``task_dict``, ``create_from_arg_string``, the abstract methods).
"""

import abc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy
import pytest
from PIL import Image


@dataclass
class Request:
    """One request of a task; ``arguments`` as ``ConfigurableTask.construct_requests`` makes them."""

    arguments: tuple

    @property
    def args(self) -> tuple:
        return self.arguments


class BaseModel(abc.ABC):
    """What our class takes from ``lmms``."""

    is_simple = True

    def __init__(self) -> None:
        self._rank, self._world_size = 0, 1
        self.task_dict: dict = {}

    @abc.abstractmethod
    def loglikelihood(self, requests): ...

    @abc.abstractmethod
    def generate_until(self, requests): ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests): ...


def install_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets ``from lmms_eval.api.model import lmms`` give the stand-in until the test ends."""
    package, api, model = (ModuleType(name) for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model"))
    model.lmms = BaseModel
    for module in (package, api, model):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "lightning_m2pt.runs.lmms_eval_model", raising=False)


def documents(number: int) -> list[dict]:
    """Returns documents with a picture each, of several modes and sizes."""
    noise = numpy.random.default_rng(0)
    sizes = ((40, 60, 3), (48, 48), (30, 20, 3))
    return [
        {
            "image": Image.fromarray(noise.integers(0, 256, sizes[n % 3], dtype=numpy.uint8)),
            "question": "Is there a circle? " + "Is it red? " * (n % 4) + "Please answer yes or no.",
            "options": ["yes", "no", "a red circle"],
            "answer": n % 3,
        }
        for n in range(number)
    ]


def pictures(document: dict) -> list:
    return [document["image"].convert("RGB")]


def requests_of(docs: list[dict], second: Callable[[dict], list], visuals: Callable = pictures) -> list[Request]:
    """Returns requests over documents of a task "shapes", split "test"; ``second`` gives their second arguments."""
    return [
        Request((document["question"], argument, visuals, number, "shapes", "test"))
        for number, document in enumerate(docs)
        for argument in second(document)
    ]
