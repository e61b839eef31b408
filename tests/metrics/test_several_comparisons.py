"""p values of resamples and Holm's adjustment, by value."""

import numpy
import pytest

from lightning_m2pt.metrics.several_comparisons import holm, resampled_p_value


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1, and never less than the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_a_p_value_counts_both_sides_and_is_never_zero() -> None:
    assert resampled_p_value(numpy.arange(1.0, 100.0)) == pytest.approx(2 / 100)
    assert resampled_p_value(numpy.array([-1.0] * 4 + [1.0] * 95)) == pytest.approx(2 * 5 / 100)
    assert resampled_p_value(-numpy.array([-1.0] * 4 + [1.0] * 95)) == pytest.approx(2 * 5 / 100)
    assert resampled_p_value(numpy.zeros(9)) == 1.0
