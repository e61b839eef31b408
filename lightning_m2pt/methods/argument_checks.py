"""Refusals that the constructors of methods share; each names the argument."""

import math

from lightning_m2pt.errors import BadInputError

MOST = 65_536
"""Rows, ranks and widths beyond this are mistakes: no model's positions or widths come near, and tensors are made of
them."""


def require_size(argument: str, value: int, least: int) -> None:
    """Refuses a number of rows, a rank or a width that no model could take.

    Args:
        argument: Name in the method's constructor.
        value: What was given.
        least: The smallest that has a meaning.

    Raises:
        BadInputError: If it is smaller, or absurdly large.
    """
    if value < least:
        what = f"{value} is negative" if value < 0 else f"{value} is too small"
        raise BadInputError(what, where=f"model.method.{argument}", expected=f"{least} or more")
    if value > MOST:
        raise BadInputError(f"{value:,} is too large", where=f"model.method.{argument}", expected=f"{MOST:,} or less")


def require_positive(argument: str, value: float) -> None:
    """Refuses a number that is not above zero, or no number at all.

    Raises:
        BadInputError: If it is not.
    """
    if not 0.0 < value < math.inf:
        raise BadInputError(f"{value:g} is not positive", where=f"model.method.{argument}", expected="more than 0")


def require_dropout(value: float) -> None:
    """Refuses a dropout that is no probability below 1.

    Raises:
        BadInputError: If it is not.
    """
    if not 0.0 <= value < 1.0:
        raise BadInputError(f"{value:g} is no probability", where="model.method.dropout", expected="0 <= p < 1")
