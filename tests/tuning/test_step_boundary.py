"""Which micro-batch ends an optimizer step."""

from types import SimpleNamespace
from typing import cast

from lightning.pytorch import Trainer

from lightning_m2pt.tuning.step_boundary import StepBoundary


def at_step(step: int) -> Trainer:
    return cast(Trainer, SimpleNamespace(global_step=step))


def test_a_boundary_is_seen_once_and_never_inside_a_window() -> None:
    steps = StepBoundary()
    steps.begin(at_step(0))
    assert [steps.is_reached(at_step(step)) for step in (0, 0, 1, 1, 1, 2, 3)] == [
        False,
        False,
        True,
        False,
        False,
        True,
        True,
    ]
    assert steps.step == 3


def test_a_resumed_training_has_no_boundary_where_it_starts() -> None:
    steps = StepBoundary()
    steps.begin(at_step(50))
    assert not steps.is_reached(at_step(50))
    assert steps.step == 50
    assert steps.is_reached(at_step(51))
