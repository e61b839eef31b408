"""How far a number may be from the right one, as a text: ``5%`` of the right number, or ``0.5``.

A share in percent is relative, any other number absolute. The text stands with every question and in prediction files,
so that whoever reads one knows what was accepted.
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache

from lightning_m2pt.errors import BadInputError

CHARTQA = "5%"
WRITTEN = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)(%?)", re.ASCII)
EXPECTED = "such as 5% (of the right number) or 0.5"


@dataclass(frozen=True)
class Tolerance:
    """How far a number may be from the right one.

    Attributes:
        size: A share of the right number, or a distance from it.
        is_relative: Whether it is a share.
    """

    size: float
    is_relative: bool

    def accepts(self, number: float, target: float) -> bool:
        """Tells whether a number is near enough to the right one; what is no finite number is not."""
        reach = self.size * abs(target) if self.is_relative else self.size
        return math.isfinite(number) and abs(number - target) <= reach


@lru_cache(maxsize=1024)
def tolerance_of(text: str, where: str) -> Tolerance:
    """Returns what a text says.

    Args:
        text: Digits with or without a fraction, and ``%`` behind a share.
        where: The place of the text, for the error.

    Raises:
        BadInputError: If it says no tolerance.
    """
    written = WRITTEN.fullmatch(text)
    if written is None:
        raise BadInputError(f"the value is {text!r:.40}", where=where, expected=EXPECTED)
    return Tolerance(float(written[1]) / 100, True) if written[2] else Tolerance(float(written[1]), False)
