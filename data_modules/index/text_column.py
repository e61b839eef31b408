"""Many texts in two arrays: no object a text, so that a million of them can be mapped from a file and shared."""

from array import array
from collections.abc import Sequence
from typing import Any, overload

import numpy
from typing_extensions import override

HALVES_TOO = "surrogatepass"
"""Sets of one's own may hold half a character; what is read back is what was written."""


class TextColumn(Sequence[str]):
    """Texts in order.

    Args:
        letters: (bytes,) uint8: all texts in UTF-8, one behind the other.
        starts: (N + 1,) int64: where each begins, and where the last one ends.
    """

    def __init__(self, letters: numpy.ndarray, starts: numpy.ndarray) -> None:
        self.letters, self.starts = letters, starts
        # Views give plain numbers and bytes four times as fast as arrays do.
        self._letters, self._starts = letters.data, starts.data

    def __len__(self) -> int:
        """Returns the number of texts."""
        return len(self._starts) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    @override
    def __getitem__(self, place: int | slice) -> str | list[str]:
        """Returns a text, or several as a list."""
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        begin, end = self._starts[place], self._starts[place + 1]
        return str(self._letters[begin:end], "utf-8", HALVES_TOO)

    def __reduce__(self) -> tuple[Any, ...]:
        """Views cannot be sent to another process; the arrays can."""
        return (TextColumn, (self.letters, self.starts))


class TextPacker:
    """Takes texts one after the other."""

    def __init__(self) -> None:
        self.letters = bytearray()
        self.starts = array("q", [0])

    def add(self, text: str) -> None:
        """Takes one more text."""
        self.letters += text.encode("utf-8", HALVES_TOO)
        self.starts.append(len(self.letters))

    def column(self) -> TextColumn:
        """Returns all texts; the packer takes no more afterwards."""
        return TextColumn(shared(self.letters, "B"), shared(self.starts, self.starts.typecode))


def shared(values: "bytearray | array[int]", kind: str) -> numpy.ndarray:
    """Returns (N,) of the same numbers in the same memory; numpy itself takes no empty ones."""
    return numpy.frombuffer(values, kind) if values else numpy.empty(0, kind)
