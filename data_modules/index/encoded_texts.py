"""The tokens of all samples, one behind the other in two arrays."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy
from typing_extensions import override

from data_modules.index.array_file import still_there
from data_modules.index.text_column import shared
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inputs.encoded_text import EncodedText

TEXTS_AT_ONCE = 100_000
"""Bounds the memory of counting: some hundred bytes a text."""


@dataclass(frozen=True, eq=False)
class EncodedTexts(Sequence[EncodedText]):
    """Encoded texts in order.

    Attributes:
        input_ids: int32: the tokens of all texts.
        spans: int8: the ``Span`` of every token.
        starts: (N + 1,) int64: where each text begins, and where the last one ends.
        supervised_tokens: (N,) int64: the labels of every text that are not ignored.
        file: Where all of it is mapped from; None in memory.
    """

    input_ids: numpy.ndarray
    spans: numpy.ndarray
    starts: numpy.ndarray
    supervised_tokens: numpy.ndarray
    file: Path | None = None

    def __len__(self) -> int:
        """Returns the number of texts."""
        return len(self.starts) - 1

    @overload
    def __getitem__(self, place: int) -> EncodedText: ...

    @overload
    def __getitem__(self, place: slice) -> list[EncodedText]: ...

    @override
    def __getitem__(self, place: int | slice) -> EncodedText | list[EncodedText]:
        """Returns a text, or several as a list."""
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        inside = slice(int(self.starts[place]), int(self.starts[place + 1]))
        return EncodedText(self.input_ids[inside], self.spans[inside])

    @cached_property
    def lengths(self) -> numpy.ndarray:
        """(N,) int64: the tokens of every text, a picture counted as one."""
        return numpy.diff(self.starts)

    def part(self, begin: int, end: int) -> "TextsInARow":
        """Returns texts in a row."""
        return TextsInARow(self, begin, end)

    def arrays(self) -> dict[str, numpy.ndarray]:
        """Returns what is written of the texts."""
        return {name: getattr(self, name) for name in ("input_ids", "spans", "starts", "supervised_tokens")}

    @classmethod
    def of(cls, arrays: Mapping[str, numpy.ndarray], file: Path) -> "EncodedTexts":
        """Returns the texts that were written into a file as these arrays."""
        return cls(**arrays, file=file)

    @classmethod
    def packed(cls, texts: Iterable[EncodedText]) -> "EncodedTexts":
        """Returns texts, which are taken one after the other and not kept."""
        ids, spans, starts = bytearray(), bytearray(), array("q", [0])
        for text in texts:
            ids += text.input_ids.astype(numpy.int32, copy=False).tobytes()
            spans += text.spans.astype(numpy.int8, copy=False).tobytes()
            starts.append(len(spans))
        of_each, begins = shared(spans, "B").view(numpy.int8), shared(starts, "q")
        return cls(shared(ids, "B").view(numpy.int32), of_each, begins, supervised_tokens(of_each, begins))

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets a worker that is started anew map the file again."""
        if self.file is not None:
            return (mapped_texts, (self.file,))
        return (EncodedTexts, tuple(self.arrays().values()))


def supervised_tokens(spans: numpy.ndarray, starts: numpy.ndarray) -> numpy.ndarray:
    """Returns (N,) int64: how many tokens of every text belong to answers.

    Args:
        spans: int8: the ``Span`` of every token of all texts.
        starts: (N + 1,) int64: where each text begins, and where the last one ends.
    """
    counts = numpy.zeros(len(starts) - 1, numpy.int64)
    for begin in range(0, len(counts), TEXTS_AT_ONCE):
        some = starts[begin : begin + TEXTS_AT_ONCE + 1]
        answers = numpy.cumsum(spans[some[0] : some[-1]] == Span.ANSWER, dtype=numpy.int64)
        counts[begin : begin + TEXTS_AT_ONCE] = numpy.diff(numpy.concatenate([[0], answers])[some - some[0]])
    return counts


def mapped_texts(path: Path) -> EncodedTexts:
    """Returns the texts of a file.

    Raises:
        EnvironmentFailure: If it is gone.
    """
    return EncodedTexts.of(still_there(path).arrays, path)


@dataclass(frozen=True, eq=False)
class TextsInARow(Sequence[EncodedText]):
    """Some texts in a row.

    Attributes:
        texts: All of them.
        begin: Number of the first.
        end: Number of the first behind them.
    """

    texts: EncodedTexts
    begin: int
    end: int

    def __len__(self) -> int:
        """Returns the number of texts."""
        return self.end - self.begin

    @overload
    def __getitem__(self, place: int) -> EncodedText: ...

    @overload
    def __getitem__(self, place: slice) -> list[EncodedText]: ...

    @override
    def __getitem__(self, place: int | slice) -> EncodedText | list[EncodedText]:
        """Returns a text, or several as a list."""
        numbers = range(self.begin, self.end)[place]
        return self.texts[numbers] if isinstance(numbers, int) else [self.texts[number] for number in numbers]

    @property
    def lengths(self) -> numpy.ndarray:
        """(N,) int64: the tokens of every text, a picture counted as one."""
        return self.texts.lengths[self.begin : self.end]

    @property
    def supervised_tokens(self) -> numpy.ndarray:
        """(N,) int64: the labels of every text that are not ignored."""
        return self.texts.supervised_tokens[self.begin : self.end]


NO_TEXTS = EncodedTexts.packed(()).part(0, 0)
