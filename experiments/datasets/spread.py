"""Positions spread over a set."""

GOLDEN_RATIO = 0.6180339887498949


def spread_positions(size: int, count: int) -> list[int]:
    """Returns at most ``count`` positions below ``size``: one in each of as many equal stretches, in order.

    Where in its stretch a position lies differs from stretch to stretch, always in the same way. Equal steps would
    fall in with the order of a set that repeats itself: of a set that alternates yes and no, they show only the yes.
    """
    number = min(count, size)
    return [int((stretch + stretch * GOLDEN_RATIO % 1) * size / number) for stretch in range(number)]
