"""All samples of a set as arrays: what stands for a million records takes their letters and some numbers.

A sample is put together when somebody asks for it. Its pictures are numbers in a table of pictures, so that what looks
at every picture looks at each once.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy
from typing_extensions import override

from data_modules.index.array_file import still_there
from data_modules.index.picture_table import PicturePacker, PictureTable
from data_modules.index.text_column import TextColumn, TextPacker, shared
from lightning_m2pt.inputs.samples import Sample, Turn

TEXTS = ("ids", "image_ids", "sources", "systems", "questions", "answers", "tasks")
PICTURES = "pictures/"


@dataclass(frozen=True, eq=False)
class SampleTable(Sequence[Sample]):
    """Samples in order: those of the training part, then those of the validation part.

    Attributes:
        texts: Columns by their names, ``TEXTS``: of every sample its id, its picture's name, its source and its system
            text; of every turn its question and its answer; every task once.
        turn_starts: (N + 1,) int64: where each sample's turns begin.
        task_starts: (N + 1,) int64: where each sample's tasks begin.
        task_numbers: int32: of every turn with a task its number.
        picture_starts: (N + 1,) int64: where each sample's pictures begin.
        picture_numbers: int64: earlier pictures, the picture itself, further ones.
        earlier: (N,) int32: how many of them are earlier ones.
        shown_starts: (N + 1,) int64: where each sample's numbers of pictures in turns begin.
        shown: int32: these numbers.
        pictures: Every picture once.
        training: How many samples the training part has.
        file: Where all of it is mapped from; None in memory.
    """

    texts: Mapping[str, TextColumn]
    turn_starts: numpy.ndarray
    task_starts: numpy.ndarray
    task_numbers: numpy.ndarray
    picture_starts: numpy.ndarray
    picture_numbers: numpy.ndarray
    earlier: numpy.ndarray
    shown_starts: numpy.ndarray
    shown: numpy.ndarray
    pictures: PictureTable
    training: int
    file: Path | None = None

    def __len__(self) -> int:
        """Returns the number of samples of both parts."""
        return len(self.earlier)

    @overload
    def __getitem__(self, place: int) -> Sample: ...

    @overload
    def __getitem__(self, place: slice) -> list[Sample]: ...

    @override
    def __getitem__(self, place: int | slice) -> Sample | list[Sample]:
        """Returns a sample, or several as a list."""
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        texts, place = self.texts, range(len(self))[place]
        turns = tuple(
            Turn(texts["questions"][number], texts["answers"][number]) for number in between(self.turn_starts, place)
        )
        numbers = self.task_numbers[self.task_starts[place] : self.task_starts[place + 1]].tolist()
        shown = self.picture_numbers[self.picture_starts[place] : self.picture_starts[place + 1]].tolist()
        images = [self.pictures[number] for number in shown]
        own = int(self.earlier[place])
        return Sample(
            id=texts["ids"][place],
            image=images[own] if images else None,
            image_id=texts["image_ids"][place],
            turns=turns,
            tasks=tuple(texts["tasks"][number] for number in numbers),
            source=texts["sources"][place],
            earlier_images=tuple(images[:own]),
            further_images=tuple(images[own + 1 :]),
            system=texts["systems"][place],
            shown_in_turns=tuple(self.shown[self.shown_starts[place] : self.shown_starts[place + 1]].tolist()),
        )

    def part(self, *, validation: bool) -> "SamplePart":
        """Returns the samples of one part."""
        return SamplePart(self, *((self.training, len(self)) if validation else (0, self.training)))

    def tasks_of(self, part: "SamplePart") -> list[str]:
        """Returns the tasks that occur in a part, in the order of the alphabet."""
        used = self.task_numbers[self.task_starts[part.begin] : self.task_starts[part.end]]
        return sorted(self.texts["tasks"][number] for number in numpy.unique(used).tolist())

    @cached_property
    def picture_counts(self) -> numpy.ndarray:
        """(N,) int64: how many pictures every sample has."""
        return numpy.diff(self.picture_starts)

    @cached_property
    def first_of_pictures(self) -> numpy.ndarray:
        """(P,) int64: the first sample that shows each picture."""
        first = numpy.zeros(len(self.pictures), numpy.int64)
        samples = numpy.repeat(numpy.arange(len(self)), numpy.diff(self.picture_starts))
        first[self.picture_numbers[::-1]] = samples[::-1]
        return first

    def arrays(self) -> dict[str, numpy.ndarray]:
        """Returns what is written of the table; pictures in memory are not."""
        columns = {name: column.letters for name, column in self.texts.items()}
        starts = {f"{name}_starts": column.starts for name, column in self.texts.items()}
        pictures = {PICTURES + name: values for name, values in self.pictures.arrays().items()}
        return {
            **columns,
            **starts,
            **pictures,
            "turn_starts": self.turn_starts,
            "task_starts": self.task_starts,
            "task_numbers": self.task_numbers,
            "picture_starts": self.picture_starts,
            "picture_numbers": self.picture_numbers,
            "earlier": self.earlier,
            "shown_starts": self.shown_starts,
            "shown": self.shown,
            "training": numpy.array([self.training], numpy.int64),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, numpy.ndarray], file: Path) -> "SampleTable":
        """Returns the table that was written into a file as these arrays."""
        pictures = {name.removeprefix(PICTURES): each for name, each in arrays.items() if name.startswith(PICTURES)}
        return cls(
            {name: TextColumn(arrays[name], arrays[f"{name}_starts"]) for name in TEXTS},
            arrays["turn_starts"],
            arrays["task_starts"],
            arrays["task_numbers"],
            arrays["picture_starts"],
            arrays["picture_numbers"],
            arrays["earlier"],
            arrays["shown_starts"],
            arrays["shown"],
            PictureTable.of(pictures),
            int(arrays["training"][0]),
            file,
        )

    @classmethod
    def packed(cls, training: Iterable[Sample], validation: Iterable[Sample]) -> "SampleTable":
        """Returns a table of samples, which are taken one after the other and not kept."""
        packer = SamplePacker()
        for sample in training:
            packer.add(sample)
        begin = len(packer.earlier)
        for sample in validation:
            packer.add(sample)
        return packer.table(begin)

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets a worker that is started anew map the file again."""
        if self.file is not None:
            return (mapped_samples, (self.file,))
        return (SampleTable, tuple(getattr(self, field.name) for field in fields(self)))


def mapped_samples(path: Path) -> SampleTable:
    """Returns the samples of a file.

    Raises:
        EnvironmentFailure: If it is gone.
    """
    return SampleTable.of(still_there(path).arrays, path)


class SamplePacker:
    """Takes samples one after the other."""

    def __init__(self) -> None:
        self.texts = {name: TextPacker() for name in TEXTS}
        self.turn_starts, self.task_starts, self.picture_starts = array("q", [0]), array("q", [0]), array("q", [0])
        self.task_numbers, self.earlier, self.shown = array("i"), array("i"), array("i")
        self.shown_starts = array("q", [0])
        self.picture_numbers = array("q")
        self.pictures = PicturePacker()
        self.known_tasks: dict[str, int] = {}

    def add(self, sample: Sample) -> None:
        """Takes one more sample."""
        texts = self.texts
        texts["ids"].add(sample.id)
        texts["image_ids"].add(sample.image_id)
        texts["sources"].add(sample.source)
        texts["systems"].add(sample.system)
        for turn in sample.turns:
            texts["questions"].add(turn.question)
            texts["answers"].add(turn.answer)
        self.turn_starts.append(self.turn_starts[-1] + len(sample.turns))
        for task in sample.tasks:
            if task not in self.known_tasks:
                self.known_tasks[task] = len(self.known_tasks)
                texts["tasks"].add(task)
            self.task_numbers.append(self.known_tasks[task])
        self.task_starts.append(len(self.task_numbers))
        for image in sample.images:
            self.picture_numbers.append(self.pictures.number_of(image))
        self.picture_starts.append(len(self.picture_numbers))
        self.earlier.append(len(sample.earlier_images))
        self.shown.extend(sample.shown_in_turns)
        self.shown_starts.append(len(self.shown))

    def table(self, training: int) -> SampleTable:
        """Returns all samples, of which so many are the training part; the packer takes no more afterwards."""
        return SampleTable(
            {name: packer.column() for name, packer in self.texts.items()},
            shared(self.turn_starts, "q"),
            shared(self.task_starts, "q"),
            shared(self.task_numbers, "i"),
            shared(self.picture_starts, "q"),
            shared(self.picture_numbers, "q"),
            shared(self.earlier, "i"),
            shared(self.shown_starts, "q"),
            shared(self.shown, "i"),
            self.pictures.table(),
            training,
        )


@dataclass(frozen=True, eq=False)
class SamplePart(Sequence[Sample]):
    """Some samples of a table in a row.

    Attributes:
        table: The table.
        begin: Number of the first.
        end: Number of the first behind them.
    """

    table: SampleTable
    begin: int
    end: int

    def __len__(self) -> int:
        """Returns the number of samples."""
        return self.end - self.begin

    @overload
    def __getitem__(self, place: int) -> Sample: ...

    @overload
    def __getitem__(self, place: slice) -> list[Sample]: ...

    @override
    def __getitem__(self, place: int | slice) -> Sample | list[Sample]:
        """Returns a sample, or several as a list."""
        numbers = range(self.begin, self.end)[place]
        return self.table[numbers] if isinstance(numbers, int) else [self.table[number] for number in numbers]

    def __iter__(self) -> Iterator[Sample]:
        """Yields all samples."""
        return (self.table[number] for number in range(self.begin, self.end))

    def sources_of(self, asked: Set[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """Returns which questions about pictures occur in the part, each with the source of the last sample.

        Args:
            asked: A picture's name and a question each.
        """
        names, texts = {name for name, _ in asked}, self.table.texts
        found = {}
        for place in range(self.begin, self.end):
            name = texts["image_ids"][place]
            if name in names:
                pairs = {(name, texts["questions"][number]) for number in between(self.table.turn_starts, place)}
                found.update(dict.fromkeys(asked & pairs, texts["sources"][place]))
        return found


def between(starts: numpy.ndarray, place: int) -> range:
    """Returns the numbers of what belongs to one sample."""
    return range(int(starts[place]), int(starts[place + 1]))
