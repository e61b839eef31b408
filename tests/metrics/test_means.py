"""A mean is named after what it is a mean of."""

import pytest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.means import MMAVG_MEMBERS, benchmark_mean, limited_notes

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


LIMIT = "[160 of 1,600 questions]"


@pytest.mark.parametrize("limited", [("vsr",), MMAVG_MEMBERS])
def test_fewer_questions_of_any_member_are_in_the_name(limited: tuple[str, ...]) -> None:
    values = {name + LIMIT * (name in limited): value for name, value in SEVEN.items()}
    assert benchmark_mean({f"mme{LIMIT}": 99.0, f"other{LIMIT}": 0.0} | values) == ("MMAvg of limited sets", 40)
    assert benchmark_mean({f"other{LIMIT}": 99.0} | SEVEN) == ("MMAvg", 40)


def test_a_limited_mean_of_fewer_sets_lists_them_shortly() -> None:
    values = {f"mme{LIMIT}": 90.0, f"vsr{LIMIT}": 50.0, f"pope{LIMIT} (POPE F1)": 60.0, "mnist": 100.0}
    assert benchmark_mean(values) == ("mean of limited vsr, pope (POPE F1), mnist", 70)
    with pytest.raises(BadInputError, match="nothing to average"):
        benchmark_mean({f"mme{LIMIT}": 90.0})


@pytest.mark.parametrize("part", ["[2 of 3 splits]", "[with OCR tokens, 160 of 5,000 questions]", "[random test]"])
def test_what_else_was_not_answered_stays_behind_its_set(part: str) -> None:
    values = {name + part * (name == "pope"): value for name, value in SEVEN.items()}
    assert benchmark_mean(values)[0] == f"mean of {', '.join(values)}"
    limited = {name + LIMIT * (name == "vsr"): value for name, value in values.items()}
    assert benchmark_mean(limited)[0] == f"mean of limited {', '.join(values)}"


@pytest.mark.parametrize("others", [{"vsr": 10.0}, {"vsr[20 of 1,600 questions]": 10.0}])
def test_a_set_that_is_there_twice_is_refused(others: dict[str, float]) -> None:
    """One of the two values would be lost without a word."""
    for values in ({f"vsr{LIMIT}": 50.0} | others, others | {f"vsr{LIMIT}": 50.0}, SEVEN | {f"vsr{LIMIT}": 50.0}):
        with pytest.raises(BadInputError, match=r"vsr.* and vsr.* are one set"):
            benchmark_mean(values)


def test_limits_stand_in_one_line_and_rows_are_named_where_they_differ() -> None:
    names, line = [f"vsr{LIMIT}", "mnist", f"pope{LIMIT}"], "limited sets (questions of all): "
    assert limited_notes([("a", names), ("b", names)]) == [f"{line}vsr 160 of 1,600, pope 160 of 1,600"]
    assert limited_notes([("a", ["vsr", "pope[2 of 3 splits]"])]) == []
    notes = limited_notes([("a", names[:1]), ("b", ["vsr"]), ("c", names[:1]), ("d", names[2:])])
    assert notes == [f"a, c: {line}vsr 160 of 1,600", f"d: {line}pope 160 of 1,600"]
