"""Kendall's tau between two orders of methods, by value."""

import numpy
import pytest

from benchmarks.report import order
from benchmarks.report.cells import Cell
from benchmarks.report.order import agreement, moved


def cells(*means: float) -> dict[str, Cell]:
    """Methods a, b, c, ... of one seed each."""
    return {name: Cell((mean,)) for name, mean in zip("abcdefgh", means, strict=False)}


def test_one_swapped_pair_of_four_by_hand() -> None:
    found = agreement(cells(1, 2, 3, 4), cells(10, 30, 20, 40))
    assert found is not None
    # Of six pairs five agree: (5 - 1) / 6. Of the 24 orders 1 + 3 agree as much, and as many disagree as much.
    assert found.tau == pytest.approx(4 / 6)
    assert found.p_value == pytest.approx(8 / 24)
    assert (found.low, found.high) == (found.tau, found.tau)  # one seed each: nothing moves
    assert found.methods == ("a", "b", "c", "d")
    assert found.is_exact


def test_ties_are_those_of_tau_b() -> None:
    found = agreement(cells(1, 1, 2), cells(1, 2, 3))
    assert found is not None
    assert found.tau == pytest.approx(2 / 6**0.5)
    assert not found.is_exact
    nearly = agreement({"a": Cell((0.1 + 0.2,)), "b": Cell((0.3,)), "c": Cell((2.0,))}, cells(1, 2, 3))
    assert nearly is not None
    assert (nearly.tau, nearly.is_exact) == (found.tau, False)


def test_common_methods_alone_are_compared() -> None:
    first = {"only here": Cell((9.0,)), **cells(3, 2, 1)}
    found = agreement(first, {**cells(1, 2, 3), "only there": Cell((0.0,))})
    assert found is not None
    assert (found.methods, found.tau) == (("a", "b", "c"), -1.0)
    assert found.p_value == pytest.approx(2 / 6)


@pytest.mark.parametrize(
    ("first", "second"), [(cells(1, 2), cells(1, 2)), (cells(1, 2, 3), cells(5, 5, 5))], ids=["two", "all equal"]
)
def test_what_is_no_order_is_not_compared(first: dict[str, Cell], second: dict[str, Cell]) -> None:
    assert agreement(first, second) is None


def test_seeds_that_differ_widen_the_interval_and_the_draws_are_seeded() -> None:
    sure = {"a": Cell((1.0, 1.1, 0.9)), "b": Cell((5.0, 5.1, 4.9)), "c": Cell((9.0, 9.1, 8.9))}
    unsure = {"a": Cell((1.0, 9.0, 5.0)), "b": Cell((5.1, 1.0, 9.2)), "c": Cell((9.3, 5.0, 1.3))}
    there = cells(1, 2, 3)
    first = agreement(sure, there)
    assert first is not None
    assert (first.low, first.high) == (1.0, 1.0)
    second = agreement(unsure, there)
    assert second is not None
    assert (second.low, second.high) == (-1.0, 1.0)
    assert agreement(unsure, there) == second


@pytest.mark.parametrize(("mean", "low"), [(19.06, 1 / 3), (31.2, 1.0)], ids=["3.5 in 100", "1.5 in 100"])
def test_the_interval_leaves_out_two_and_a_half_percent_on_either_side(mean: float, low: float) -> None:
    # Two seeds of standard error 1: Cauchy's distribution, in which c falls behind b in so many draws.
    found = agreement({**cells(0, 10), "c": Cell((mean - 1, mean + 1))}, cells(1, 2, 3))
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(low), 1.0)


def test_a_draw_moves_by_the_standard_error_times_students_t_of_its_own_degrees() -> None:
    class Drawn(numpy.random.Generator):
        def standard_t(self, df: int) -> float:  # type: ignore[override]
            return {1: 10.0, 2: 100.0}[df]

    several = [Cell((4.0, 6.0)), Cell((1.0, 2.0, 3.0)), Cell((7.0,))]
    assert moved(several, Drawn(numpy.random.PCG64())) == pytest.approx([5 + 10, 2 + 100 / 3**0.5, 7])


def test_the_seed_alone_decides_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "DRAWS", 4)
    unsure = {"a": Cell((1.0, 9.0)), "b": Cell((5.0, 1.0)), "c": Cell((9.0, 5.0))}
    first, second = ([agreement(unsure, cells(1, 2, 3), seed) for seed in range(8)] for _ in range(2))
    assert first == second
    assert len({(found.low, found.high) for found in first if found is not None}) > 1
