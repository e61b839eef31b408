"""Reading and writing the small text files of data sets, with the place of every mistake."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy
from PIL import Image

from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.metrics.predictions import is_encodable
from lightning_m2pt.system.strict_json import parse_json

JPEG_QUALITY = 95
Record: TypeAlias = tuple[str, dict[str, Any]]
"""``FILE:LINE`` or ``FILE: record N``, and the record."""


def read_text(path: Path) -> str:
    """Returns a UTF-8 text file's content, without a byte order mark and with plain newlines.

    Raises:
        BadInputError: If the file is missing, no regular file, empty, or not UTF-8 text.
        EnvironmentFailure: If it may not be read.
    """
    if not path.exists():
        raise BadInputError("the file does not exist", where=str(path), hint="check the data set's `root`")
    if not path.is_file():
        raise BadInputError("this is not a regular file", where=str(path), expected="a text file")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except PermissionError as error:
        raise EnvironmentFailure("no permission to read the file", where=str(path)) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise BadInputError("this is not UTF-8 text", where=f"{path}:{line}", expected="UTF-8 text") from error
    if not text.strip():
        raise BadInputError("the file is empty", where=str(path), expected="at least one record")
    return text.replace("\r\n", "\n")


def json_records(path: Path) -> Iterator[Record | BadInputError]:
    """Yields the records of JSON lines or of one JSON list of objects, or the mistake in a record's place.

    Empty lines are passed over.

    Raises:
        BadInputError: If the file cannot be read.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        records = parse_json(text, path)
        assert isinstance(records, list)
        yield from objects(records, path)
        return
    yield from line_rows(path, text)


def line_rows(path: Path, text: str) -> Iterator[Record | BadInputError]:
    """Yields (``FILE:LINE``, object) of JSON lines, or the mistake in a line's place; empty lines are passed over."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            yield where, checked_object(parse_json(line, path, number), where)
        except BadInputError as error:
            yield error


def objects(records: list[Any], path: Path) -> Iterator[Record | BadInputError]:
    """Yields (``FILE: record N``, record) of a list of JSON objects, or the mistake in a record's place."""
    for number, record in enumerate(records, start=1):
        where = f"{path}: record {number}"
        try:
            yield where, checked_object(record, where)
        except BadInputError as error:
            yield error


def checked_object(record: object, where: str) -> dict[str, Any]:
    """Returns ``record`` if it is a JSON object.

    Raises:
        BadInputError: If it is anything else.
    """
    if not isinstance(record, dict):
        raise BadInputError(f"the record is a {type(record).__name__}", where=where, expected="a JSON object")
    return record


def text_field(record: Mapping[str, Any], key: str, where: str, *, may_be_empty: bool = False) -> str:
    """Returns a record's text field.

    Raises:
        BadInputError: If the key is missing, or its value is no text, or empty and may not be.
    """
    if key not in record:
        raise BadInputError(
            f"the key {key!r} is missing", where=where, expected=f"a text under {key!r}", hint="see the file's recipe"
        )
    value = record[key]
    if not isinstance(value, str):
        raise BadInputError(f"the value is {value!r:.40}", where=f"{where}: {key}", expected="a text")
    if not value.strip() and not may_be_empty:
        raise BadInputError("the text is empty", where=f"{where}: {key}", expected="a text that is not empty")
    if not is_encodable(value):
        raise BadInputError("the text holds half a character", where=f"{where}: {key}", expected="Unicode text")
    return value


def write_image(path: Path, image: numpy.ndarray) -> None:
    """Writes an (H, W, 3) or (H, W) uint8 array: JPEG for a ``.jpg`` name, PNG for any other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(image)
    if path.suffix.lower() in {".jpg", ".jpeg"}:
        picture.save(path, format="JPEG", quality=JPEG_QUALITY)
    else:
        picture.save(path, format="PNG")


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text with plain newlines, making the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def fake_image(number: int, side: int = 32, channels: int = 3) -> numpy.ndarray:
    """Returns an invented picture: (side, side, 3) or, with one channel, (side, side) uint8; the same every time."""
    shape = (side, side, channels) if channels > 1 else (side, side)
    return numpy.random.default_rng(number).integers(0, 256, size=shape, dtype=numpy.uint8)
