"""Every picture of a set once, without opening one: where it lies, and what the file system says of it."""

import os
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy

from data_modules.index.text_column import TextColumn, TextPacker, shared
from lightning_m2pt.inputs.encoded_picture import EncodedPicture
from lightning_m2pt.inputs.samples import ImageSource
from lightning_m2pt.inputs.stored_image import StoredImage
from lightning_m2pt.inputs.tar_picture import TarPicture

FILE, STORED, IN_TAR, IN_MEMORY = range(4)
ASKED_FIRST = 200
SLOW_SECONDS = 1e-4
"""A file system that takes longer to answer is asked by many threads: they wait for it together."""
THREADS = 32
MISSING = -1


@dataclass(frozen=True)
class PictureStates:
    """What is known of a table's pictures from outside.

    Attributes:
        sizes: (P,) int64: bytes of every picture; ``MISSING`` where there is none, 0 of an array.
        times: (P,) int64: when the file it lies in was changed, in nanoseconds.
    """

    sizes: numpy.ndarray
    times: numpy.ndarray

    @property
    def missing(self) -> list[int]:
        """The numbers of the pictures that are not there."""
        return numpy.flatnonzero(self.sizes == MISSING).tolist()


class PictureTable(Sequence[ImageSource]):
    """Pictures in the order in which a set names them first.

    Args:
        kinds: (P,) uint8: whether it is a file, a place in one, or in memory.
        paths: The files.
        names: For a place in a file its column, or its name in a tar file.
        places: (P, 3) int64: for a place in a file the row group and the row, or the first byte in a tar file, and the
            bytes; for one in memory its number.
        in_memory: Arrays, and pictures of a file's text.
    """

    def __init__(
        self,
        kinds: numpy.ndarray,
        paths: TextColumn,
        names: TextColumn,
        places: numpy.ndarray,
        in_memory: Sequence[ImageSource] = (),
    ) -> None:
        self.kinds, self.paths, self.names, self.places = kinds, paths, names, places
        self.in_memory = in_memory

    def __len__(self) -> int:
        """Returns the number of pictures."""
        return len(self.paths)

    def __getitem__(self, number: int) -> ImageSource:  # type: ignore[override]  # nobody takes several at once
        """Returns a picture."""
        kind = self.kinds[number]
        if kind == FILE:
            return Path(self.paths[number])
        if kind == IN_MEMORY:
            return self.in_memory[int(self.places[number, 0])]
        path, name = Path(self.paths[number]), self.names[number]
        first, row, size = self.places[number].tolist()
        return TarPicture(path, name, first, size) if kind == IN_TAR else StoredImage(path, name, first, row, size)

    def arrays(self) -> dict[str, numpy.ndarray]:
        """Returns what is written of the table; pictures in memory are not."""
        return {
            "kinds": self.kinds,
            "paths": self.paths.letters,
            "path_starts": self.paths.starts,
            "names": self.names.letters,
            "name_starts": self.names.starts,
            "places": self.places,
        }

    @classmethod
    def of(cls, arrays: Mapping[str, numpy.ndarray]) -> "PictureTable":
        """Returns the table that was written as these arrays."""
        return cls(
            arrays["kinds"],
            TextColumn(arrays["paths"], arrays["path_starts"]),
            TextColumn(arrays["names"], arrays["name_starts"]),
            arrays["places"],
        )

    def states(self) -> PictureStates:
        """Asks the file system for every picture; no file is opened."""
        sizes, times = numpy.zeros(len(self), numpy.int64), numpy.zeros(len(self), numpy.int64)
        files = numpy.flatnonzero(self.kinds == FILE)
        sizes[files], times[files] = asked([self.paths[number] for number in files.tolist()])
        stored = numpy.flatnonzero((self.kinds == STORED) | (self.kinds == IN_TAR))
        sizes[stored] = self.places[stored, 2]
        for number in numpy.flatnonzero(self.kinds == IN_MEMORY).tolist():
            image = self[number]
            sizes[number] = image.size if isinstance(image, EncodedPicture) else 0
        if len(stored):
            inside = [self.paths[number] for number in stored.tolist()]
            holders = list(dict.fromkeys(inside))
            found = dict(zip(holders, asked(holders)[1].tolist(), strict=True))
            times[stored] = [found[path] for path in inside]
        return PictureStates(sizes, times)


class PicturePacker:
    """Takes pictures one after the other, each once."""

    def __init__(self) -> None:
        self.numbers: dict[str | EncodedPicture, int] = {}
        self.kinds, self.places = bytearray(), array("q")
        self.paths, self.names = TextPacker(), TextPacker()
        self.in_memory: list[ImageSource] = []

    def number_of(self, image: ImageSource) -> int:
        """Returns a picture's number; every array is a picture of its own."""
        if isinstance(image, numpy.ndarray):
            return self._held(image)
        key = image if isinstance(image, EncodedPicture) else str(image)
        number = self.numbers.get(key)
        if number is None:
            if isinstance(image, StoredImage):
                place = (image.row_group, image.row, image.size)
                number = self._added(STORED, str(image.path), image.column, place)
            elif isinstance(image, TarPicture):
                number = self._added(IN_TAR, str(image.path), image.member, (image.offset, 0, image.size))
            else:
                number = self._held(image) if isinstance(image, EncodedPicture) else self._added(FILE, str(image))
            self.numbers[key] = number
        return number

    def _held(self, image: ImageSource) -> int:
        self.in_memory.append(image)
        return self._added(IN_MEMORY, place=(len(self.in_memory) - 1, 0, 0))

    def _added(self, kind: int, path: str = "", name: str = "", place: tuple[int, int, int] = (0, 0, 0)) -> int:
        self.kinds.append(kind)
        self.paths.add(path)
        self.names.add(name)
        self.places.extend(place)
        return len(self.kinds) - 1

    def table(self) -> PictureTable:
        """Returns all pictures; the packer takes no more afterwards."""
        places = shared(self.places, "q").reshape(-1, 3)
        return PictureTable(
            shared(self.kinds, "B"), self.paths.column(), self.names.column(), places, tuple(self.in_memory)
        )


def asked(paths: Sequence[str]) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Returns sizes and times of files, (P,) int64 each; ``MISSING`` and 0 where there is none.

    A file system that answers slowly is asked by many threads; what they find is the same.
    """
    started = time.perf_counter()
    first = list(answers(paths[:ASKED_FIRST]))
    rest = paths[ASKED_FIRST:]
    if rest and time.perf_counter() - started > SLOW_SECONDS * ASKED_FIRST:
        with ThreadPoolExecutor(THREADS) as threads:
            shares = [rest[begin : begin + ASKED_FIRST] for begin in range(0, len(rest), ASKED_FIRST)]
            parts = list(threads.map(lambda share: list(answers(share)), shares))
        found = numpy.array([*first, *(answer for part in parts for answer in part)], numpy.int64)
    else:
        found = numpy.fromiter(
            (number for answer in (*first, *answers(rest)) for number in answer), numpy.int64, 2 * len(paths)
        )
    sizes, times = found.reshape(-1, 2).T
    return sizes, times


def answers(paths: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yields size and time of every file."""
    for path in paths:
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            yield MISSING, 0
        else:
            yield status.st_size, status.st_mtime_ns
