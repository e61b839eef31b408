"""A result whose text loses something else than the search measured is a fault of the program, said in three lines."""

from pathlib import Path

import pytest

from lightning_m2pt.errors import BadInputError, ExitCode, M2PTError
from lightning_m2pt.prompt_search.recomputed import refuse_other_loss


@pytest.mark.parametrize(
    ("searched", "again", "dtype"),
    [(1.0, 1.001, "float32"), (10.0, 10.002, "float32"), (1.0, 1.06, "bfloat16"), (1.0, float("nan"), "float32")],
)
def test_other_losses_are_refused_with_both_numbers(searched, again, dtype):
    with pytest.raises(M2PTError) as caught:
        refuse_other_loss(searched, again, dtype, Path("p.json"))
    error = caught.value
    assert (error.exit_code, isinstance(error, BadInputError)) == (ExitCode.BUG, False)
    lines = error.message().splitlines()
    assert len(lines) == 3
    assert f"{again:.6f}" in lines[0]
    assert f"{searched:.6f}" in lines[0]
    assert "please report" in lines[2]


def test_rounding_passes():
    refuse_other_loss(1.0, 1.00009, "float32", Path("p.json"))
    refuse_other_loss(20.0, 20.0019, "float64", Path("p.json"))
    refuse_other_loss(1.0, 1.04, "bfloat16", Path("p.json"))
