"""A mean is named after what it is a mean of."""

import pytest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.means import MMAVG_MEMBERS, benchmark_mean

SEVEN = {name: 10.0 * number for number, name in enumerate(MMAVG_MEMBERS, start=1)}


def test_seven_members_make_mmavg_whatever_else_is_there() -> None:
    assert len(MMAVG_MEMBERS) == 7
    assert benchmark_mean(SEVEN) == ("MMAvg", 40)
    assert benchmark_mean({"mme": 99.0, "other": 0.0} | SEVEN) == ("MMAvg", 40)


@pytest.mark.parametrize("missing", MMAVG_MEMBERS)
def test_six_members_are_named(missing: str) -> None:
    values = {name: value for name, value in SEVEN.items() if name != missing}
    name, mean = benchmark_mean(values)
    assert name == f"mean of {', '.join(values)}"
    assert mean == pytest.approx(sum(values.values()) / 6)


def test_mme_never_counts() -> None:
    assert benchmark_mean({"mme": 90.0, "vsr": 50.0, "pope": 60.0, "mnist": 100.0}) == ("mean of vsr, pope, mnist", 70)
    for nothing in ({}, {"mme": 90.0}):
        with pytest.raises(BadInputError, match="nothing to average"):
            benchmark_mean(nothing)
