"""What stands for the pictures of all samples: every layout once, and a number for every picture of a sample."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy

from data_modules.index.encoded_texts import TextsInARow
from data_modules.index.sample_table import SamplePart, SampleTable
from data_modules.index.text_column import shared
from lightning_m2pt.inputs.picture_layout import PictureLayout, RunRows
from lightning_m2pt.inputs.processing import Processor


@dataclass(frozen=True, eq=False)
class SampleLayouts:
    """The layouts of every sample's pictures.

    Attributes:
        distinct: Every layout once.
        numbers: int32: of every picture of a sample its layout's number.
        starts: (N + 1,) int64: where each sample's pictures begin.
    """

    distinct: Sequence[PictureLayout]
    numbers: numpy.ndarray
    starts: numpy.ndarray

    def __len__(self) -> int:
        """Returns the number of samples."""
        return len(self.starts) - 1

    @cached_property
    def pictures(self) -> numpy.ndarray:
        """(N,) int64: how many pictures every sample has."""
        return numpy.diff(self.starts)

    @cached_property
    def tiles(self) -> numpy.ndarray:
        """(N,) int64: the tiles of every sample's pictures."""
        return self.added([layout.tiles for layout in self.distinct])

    def rows(self, texts: TextsInARow, run_rows: RunRows) -> numpy.ndarray:
        """Returns (N,) int64: the rows of every sample's text and pictures in the language model.

        Args:
            texts: Their tokens, one for every picture.
            run_rows: What a picture's runs become.
        """
        rows: numpy.ndarray = texts.lengths + self.added([run_rows.of(layout) - 1 for layout in self.distinct])
        return rows

    def added(self, values: Sequence[int]) -> numpy.ndarray:
        """Returns (N,) int64: for every sample the sum over its pictures of what their layouts have."""
        of_each = numpy.array(values, numpy.int64)[self.numbers]
        sums = numpy.concatenate([[0], numpy.cumsum(of_each)])
        added: numpy.ndarray = numpy.diff(sums[self.starts])
        return added

    def part(self, part: SamplePart) -> "SampleLayouts":
        """Returns the layouts of some samples."""
        return SampleLayouts(self.distinct, self.numbers, self.starts[part.begin : part.end + 1])

    def arrays(self) -> dict[str, numpy.ndarray]:
        """Returns what is written of the layouts."""
        tokens = [layout.token_ids for layout in self.distinct]
        rows = [numpy.array(layout.rows, numpy.int32) for layout in self.distinct]
        return {
            "numbers": self.numbers,
            "starts": self.starts,
            "token_ids": numpy.concatenate([*tokens, numpy.empty(0, numpy.int32)]),
            "token_counts": numpy.array([len(each) for each in tokens], numpy.int64),
            "rows": numpy.concatenate([*rows, numpy.empty(0, numpy.int32)]),
            "row_counts": numpy.array([len(each) for each in rows], numpy.int64),
            "tiles": numpy.array([layout.tiles for layout in self.distinct], numpy.int64),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, numpy.ndarray]) -> "SampleLayouts":
        """Returns the layouts that were written as these arrays."""
        tokens = numpy.split(arrays["token_ids"], numpy.cumsum(arrays["token_counts"]))
        rows = numpy.split(arrays["rows"], numpy.cumsum(arrays["row_counts"]))
        distinct = [
            PictureLayout(ids, tuple(of_runs.tolist()), tiles)
            for ids, of_runs, tiles in zip(tokens, rows, arrays["tiles"].tolist(), strict=False)
        ]
        return cls(distinct, arrays["numbers"], arrays["starts"])

    @classmethod
    def made(cls, table: SampleTable, processor: Processor) -> "SampleLayouts":
        """Returns the layouts of all samples; each file's header is read once, where sizes matter at all.

        Raises:
            BadInputError: If a picture's size has to be known and cannot be read, or the model does not take it.
        """
        shown = table.picture_numbers
        if not processor.layouts_vary:
            (layout,) = processor.layouts([Path()])  # of any picture
            return cls([layout], numpy.zeros(len(shown), numpy.int32), table.picture_starts)
        known: dict[bytes, list[int]] = {}
        distinct: dict[tuple[bytes, tuple[int, ...], int], tuple[int, PictureLayout]] = {}
        numbers = array("i")
        for place in range(len(table)):
            of_sample = shown[table.picture_starts[place] : table.picture_starts[place + 1]]
            key = of_sample.tobytes()
            if key not in known:
                sample = table[place]
                found = processor.layouts(sample.images, f"{sample.source}: sample {sample.id}")
                known[key] = [
                    distinct.setdefault((each.token_ids.tobytes(), each.rows, each.tiles), (len(distinct), each))[0]
                    for each in found
                ]
            numbers.extend(known[key])
        return cls([layout for _, layout in distinct.values()], shared(numbers, "i"), table.picture_starts)
