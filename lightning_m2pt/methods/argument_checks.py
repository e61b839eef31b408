"""Refusals that the constructors of methods share; each names the argument."""

from lightning_m2pt.errors import BadInputError


def require_at_least(argument: str, value: int, least: int) -> None:
    """Refuses a number below the smallest that has a meaning.

    Args:
        argument: Name in the method's constructor.
        value: What was given.
        least: The smallest that is allowed.

    Raises:
        BadInputError: If it is smaller.
    """
    if value < least:
        what = f"{value} is negative" if value < 0 else f"{value} is too small"
        raise BadInputError(what, where=f"model.method.{argument}", expected=f"{least} or more")


def require_positive(argument: str, value: float) -> None:
    """Refuses a number that is not above zero.

    Raises:
        BadInputError: If it is not.
    """
    if value <= 0.0:
        raise BadInputError(f"{value:g} is not positive", where=f"model.method.{argument}", expected="more than 0")


def require_dropout(value: float) -> None:
    """Refuses a dropout that is no probability below 1.

    Raises:
        BadInputError: If it is not.
    """
    if not 0.0 <= value < 1.0:
        raise BadInputError(f"{value:g} is no probability", where="model.method.dropout", expected="0 <= p < 1")
