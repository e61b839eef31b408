"""Random generators go on where they were."""

import json
import random

import numpy
import torch

from lightning_m2pt.tuning.rng import restore_rng, rng_state


def draws() -> list[float]:
    gauss = [random.gauss(0, 1), float(numpy.random.normal())]
    return [*gauss, random.random(), float(numpy.random.rand()), *torch.rand(3).tolist()]


def test_all_generators_go_on_after_a_round_trip_through_json() -> None:
    draws()  # leaves half a pair of normal numbers behind in Python's and numpy's generator
    state = json.loads(json.dumps(rng_state()))
    expected = draws()
    draws()
    restore_rng(state)
    assert draws() == expected
