"""Arrays in one file that many processes map: nobody holds a copy, and nothing of the file is run.

The form is that of safetensors, so that any tool can look inside. Besides what the format has, the notes hold the
SHA-256 over everything, which is asked at every opening: a file that was cut off or changed counts as none.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy

from lightning_m2pt.errors import EnvironmentFailure
from lightning_m2pt.system.atomic_files import write_parts_atomically

TYPES = {"I64": numpy.int64, "I32": numpy.int32, "U8": numpy.uint8, "I8": numpy.int8}
NAMES = {numpy.dtype(kind): name for name, kind in TYPES.items()}
NOTES, DIGEST = "__metadata__", "sha256"
LENGTH_BYTES = 8
LONGEST_HEADER = 2**20


@dataclass(frozen=True)
class ArrayFile:
    """What one file holds.

    Attributes:
        path: Where it lies.
        arrays: Every array by its name, read-only; mapped, not read.
        notes: Texts by their names.
    """

    path: Path
    arrays: Mapping[str, numpy.ndarray]
    notes: Mapping[str, str]

    @property
    def digest(self) -> str:
        """The SHA-256 of arrays and notes."""
        return self.notes[DIGEST]


def write_arrays(path: Path, arrays: Mapping[str, numpy.ndarray], notes: Mapping[str, str]) -> None:
    """Writes arrays so that, whatever happens, the old file or the whole new one stands there.

    Args:
        path: The file; its folder must exist.
        arrays: int64, int32, uint8 or int8, contiguous, of any shape.
        notes: Texts beside them.

    Raises:
        EnvironmentFailure: If it cannot be written.
    """
    # Those of wide numbers first: then every one begins at a multiple of its width.
    ordered = dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))
    entries: dict[str, Any] = {}
    place = 0
    for name, values in ordered.items():
        entries[name] = {
            "dtype": NAMES[values.dtype],
            "shape": list(values.shape),
            "data_offsets": [place, place + values.nbytes],
        }
        place += values.nbytes
    digest = hashlib.sha256(encoded(entries, notes))
    for values in ordered.values():
        digest.update(bytes_of(values))
    header = encoded(entries, {**notes, DIGEST: digest.hexdigest()})
    header += b" " * (-len(header) % LENGTH_BYTES)
    front = len(header).to_bytes(LENGTH_BYTES, "little") + header
    write_parts_atomically(path, [front, *map(bytes_of, ordered.values())])


def open_arrays(path: Path) -> ArrayFile | None:
    """Returns what a file holds; None if there is none, or it is not what was written."""
    try:
        with path.open("rb") as file:
            entries, notes, begin = read_header(file)
            recorded = notes.pop(DIGEST)
            digest = hashlib.sha256(encoded(entries, notes))
            hashlib.file_digest(file, lambda: digest)
            if digest.hexdigest() != recorded:
                return None
        whole = numpy.memmap(path, numpy.uint8, "r")
        arrays = dict(views(whole[begin:], entries))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    return ArrayFile(path, arrays, {**notes, DIGEST: recorded})


def still_there(path: Path) -> ArrayFile:
    """Returns what a file holds that was there before.

    Raises:
        EnvironmentFailure: If it is gone or damaged by now.
    """
    opened = open_arrays(path)
    if opened is None:
        raise EnvironmentFailure(
            "the set's index has been removed or damaged while it was in use",
            where=str(path),
            hint="start the same command again, which writes another",
        )
    return opened


def read_header(file: BinaryIO) -> tuple[dict[str, Any], dict[str, str], int]:
    """Returns a file's entries, its notes and where its arrays begin; raises ValueError if that is no header."""
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if not 0 < length <= LONGEST_HEADER:
        raise ValueError("no header")
    entries = json.loads(file.read(length))
    return entries, entries.pop(NOTES), LENGTH_BYTES + length


def views(whole: numpy.ndarray, entries: Mapping[str, Any]) -> Iterator[tuple[str, numpy.ndarray]]:
    """Yields every array by its name.

    Args:
        whole: (bytes,) uint8: all arrays, one behind the other.
        entries: What the header says of them.
    """
    for name, entry in entries.items():
        begin, end = entry["data_offsets"]
        # A plain array: the mapped kind makes an object of its own of every slice, which takes ten times as long.
        yield name, numpy.asarray(whole[begin:end]).view(TYPES[entry["dtype"]]).reshape(entry["shape"])


def encoded(entries: Mapping[str, Any], notes: Mapping[str, str]) -> bytes:
    """Returns a header's text."""
    return json.dumps({NOTES: dict(notes), **entries}).encode()


def bytes_of(values: numpy.ndarray) -> memoryview:
    """Returns an array's bytes without copying them."""
    return values.reshape(-1).view(numpy.uint8).data
