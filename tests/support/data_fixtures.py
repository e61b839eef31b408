"""Pictures that the data tests share."""

import numpy


def fake_pictures(number: int, side: int) -> numpy.ndarray:
    """Returns (number, side, side, 3) uint8 noise."""
    return numpy.random.default_rng(number).integers(0, 256, (number, side, side, 3), dtype=numpy.uint8)
