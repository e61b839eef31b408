"""Figures of the real pair that are kept, by value: differences of whole methods, and seconds of a step."""

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.learning import sweep_scores
from benchmarks.training.on_real_pair import beside_peft
from lightning_m2pt.metrics.means import MMAVG_MEMBERS
from lightning_m2pt.runs.evaluated import Group


def test_a_method_without_one_of_the_seven_sets_has_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    averaged = []

    def gain(first: Group, group: Group, name: str) -> str | None:
        return None if (group.name, name) == ("short", "pope") else f"{group.name} {name} to {first.name}"

    def mean(gains: list[str]) -> Any:
        averaged.append(gains)
        return SimpleNamespace(difference=1.23456, interval=SimpleNamespace(low=-0.5, high=3.0))

    monkeypatch.setattr(sweep_scores, "gain_over", gain)
    monkeypatch.setattr(sweep_scores, "mean_gain", mean)
    groups = [Group("first", []), Group("whole", []), Group("short", [])]
    found = sweep_scores.gains_over("first", groups)
    assert found["whole"] == {"difference": 1.2346, "low": -0.5, "high": 3.0}
    assert "short" not in found
    assert sorted(averaged[-1]) == sorted(f"whole {name} to first" for name in MMAVG_MEMBERS)


def test_a_steps_seconds_are_between_two_ends_on_both_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    read = iter([(1.0, 10.0), (3.0, 15.0), (6.0, 22.0)])
    monkeypatch.setattr(beside_peft, "clocks", lambda: next(read))
    times = beside_peft.StepTimes()
    for step in (0, 1, 1, 2, 2, 3):  # micro-batches, two a step
        times.on_train_batch_end(SimpleNamespace(global_step=step))
    assert times.seconds == [(2.0, 5.0), (3.0, 7.0)]
