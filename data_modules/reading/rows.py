"""Rows of a data set: from JSON, JSON lines, CSV, TSV, Parquet, tar shards, or a folder of pictures with texts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_modules.reading.captioned_folder import captioned_rows, picture_files
from data_modules.reading.files import Record, line_rows, objects, read_text
from data_modules.reading.parquet_rows import parquet_files, parquet_rows
from data_modules.reading.sources import PARQUET, TAR, TEXT_ENDINGS, Source, readable_in
from data_modules.reading.tables import table_rows
from data_modules.reading.tar_rows import tar_files, tar_rows
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.strict_json import parse_json

LISTS_IN_RECORDS = frozenset({"conversations", "conversation", "messages", "dialogue", "dialog", "texts"})
"""Keys under which a record, and no set of records, has a list of objects."""
LISTINGS = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""Files that say in a folder of pictures what is on them, as the library ``datasets`` looks for them."""


def rows_of(source: Source) -> Iterator[Record | BadInputError]:
    """Yields (``FILE:LINE`` or ``FILE: record N``, row), or the mistake in a row's place.

    What a cell holds is what the file says: texts from CSV, where an empty cell is None; JSON values from JSON; of
    Parquet's pictures a ``PictureCell``. Everything is read in the order of the file.

    Raises:
        BadInputError: If the file cannot be read, or a folder does not say what in it is to be read.
        EnvironmentFailure: If it may not be read, or a library for its form is missing.
    """
    path = source.path
    if path.is_dir():
        yield from rows_in_folder(source)
    elif path.suffix.lower() == PARQUET:
        yield from parquet_rows([path])
    elif path.suffix.lower() == TAR:
        yield from tar_rows([path])
    elif path.suffix.lower() in (".csv", ".tsv"):
        yield from table_rows(path)
    elif path.suffix.lower() == ".json":
        yield from json_rows(path)
    else:
        yield from line_rows(path, read_text(path))


def rows_in_folder(source: Source) -> Iterator[Record | BadInputError]:
    """Yields the rows of a folder: of its Parquet files or tar shards, its one table, or its pictures with texts.

    Raises:
        BadInputError: If it holds none of them, or several tables.
    """
    files = parquet_files(source.path, source.split)
    if files:
        yield from parquet_rows(files)
        return
    shards = tar_files(source.path, source.split)
    if shards:
        yield from tar_rows(shards)
        return
    listing = next((source.path / name for name in LISTINGS if (source.path / name).is_file()), None)
    tables = [listing.name] if listing is not None else sorted(readable_in(source.path))
    if source.split is not None:
        tables = [name for name in tables if Path(name).stem == source.split]
    if len(tables) == 1:
        yield from rows_of(Source(source.path / tables[0], source.folder, source.bounds))
    elif tables:
        raise BadInputError(
            f"the folder holds {len(tables)} files that can be read: {', '.join(tables)}",
            where=str(source.path),
            expected="one of them, by its name",
        )
    elif picture_files(source.path) and source.split is None:
        yield from captioned_rows(source.path)
    else:
        wanted = "nothing that can be read" if source.split is None else f"no split {source.split!r:.60}"
        raise BadInputError(
            f"the folder holds {wanted}",
            where=str(source.path),
            expected=f"*.parquet, *.tar, one of *{', *'.join(TEXT_ENDINGS)}, or pictures with texts of the same name",
        )


def json_rows(path: Path) -> Iterator[Record | BadInputError]:
    """Yields the objects of one JSON list, of the one list in an object (``{"data": [...]}``), or of JSON lines.

    Raises:
        BadInputError: If the file cannot be read, or holds something else.
    """
    text = read_text(path)
    if text.lstrip().startswith("{") and are_lines(text, path):
        yield from line_rows(path, text)
        return
    content = parse_json(text, path)
    if isinstance(content, dict):
        content = list_inside(content, path)
    if not isinstance(content, list):
        raise BadInputError(
            f"the file holds a {type(content).__name__}", where=str(path), expected="one JSON list of objects"
        )
    yield from objects(content, path)


def list_inside(content: dict[str, Any], path: Path) -> list[Any]:
    """Returns the records of an object that holds a list of them, or the object itself as the only record.

    Raises:
        BadInputError: If there are several such lists.
    """
    lists = [
        key
        for key, value in content.items()
        if isinstance(value, list) and all(isinstance(item, dict) for item in value) and key not in LISTS_IN_RECORDS
    ]
    if len(lists) > 1:
        raise BadInputError(
            f"the file holds several lists: {', '.join(map(repr, lists))[:160]}",
            where=str(path),
            expected='one JSON list of objects, or {"data": [...]}',
        )
    records: list[Any] = content[lists[0]] if lists else [content]
    return records


def are_lines(text: str, path: Path) -> bool:
    """Tells whether a text that begins with an object is JSON lines: the first line is one, and others follow.

    A first line that is broken but closed counts as one: then its own mistake is told, and not the file's.
    """
    first, _, others = text.strip().partition("\n")
    if not others:
        return False
    try:
        return isinstance(parse_json(first, path), dict)
    except BadInputError:
        return first.rstrip().endswith("}")
