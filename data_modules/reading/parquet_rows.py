"""Rows of Parquet files of any columns; pictures stay in the file, and only their place and digest are kept."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from data_modules.reading.files import Record
from data_modules.reading.hub_files import FILE_NAME, class_names, hub_files
from data_modules.reading.sources import PARQUET
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.stored_image import BYTES_FIELD, StoredImage, damaged, parquet_reader, unreadable

PATH_FIELD = "path"
SPLITS = frozenset({"train", "training", "test", "testing", "val", "validation", "dev"})
"""Names that say that a file is a split, even if it is not numbered."""


@dataclass(frozen=True)
class PictureCell:
    """A picture inside a Parquet file.

    Attributes:
        image: Where it is; rows with the same picture share the first one's.
        digest: SHA-256 of the encoded picture.
    """

    image: StoredImage
    digest: str


def parquet_files(folder: Path, split: str | None) -> list[Path]:
    """Returns the Parquet files of a folder in order, those of one split; none if there are none.

    Files whose names say nothing of splits are parts of one set, in the order of their names.

    Raises:
        BadInputError: If there are several splits and none is named, there is no such split, or a part is missing.
    """
    found = [*folder.glob(f"*{PARQUET}"), *folder.glob(f"*/*{PARQUET}")]
    files = sorted(path for path in found if not path.relative_to(folder).parts[0].startswith("."))
    matches = [match for path in files if (match := FILE_NAME.fullmatch(path.name))]
    splits = sorted({match["split"] for match in matches})
    says_splits = len(splits) < 2 or any(match["number"] or match["split"] in SPLITS for match in matches)
    if not files or (split is None and len(splits) == 1):
        return hub_files(folder, splits[0]) if splits else []
    if split is None and not says_splits:
        if len({path.parent for path in files}) == 1:
            return files
        raise BadInputError(
            "there are Parquet files in several folders", where=str(folder), expected="one of the folders, by its name"
        )
    if split is None or split not in splits:
        raise BadInputError(
            f"there are the splits {', '.join(splits)[:160]}" if split is None else f"there is no split {split!r:.60}",
            where=str(folder),
            expected=f"split: one of {', '.join(splits)[:160]}",
        )
    return hub_files(folder, split)


def parquet_rows(files: Sequence[Path]) -> Iterator[Record | BadInputError]:
    """Yields (``FILE: row N``, row), N from 1; a picture is a ``PictureCell``, or its name where it has no bytes.

    Numbers of classes become the names that the file's metadata give them.

    Raises:
        BadInputError: If a file is damaged.
        EnvironmentFailure: If pyarrow is not installed.
    """
    parquet = parquet_reader()
    first_of_content: dict[str, PictureCell] = {}
    for path in files:
        first_row = 0
        try:
            with parquet.ParquetFile(path, memory_map=True) as file:
                classes = {column: labels_of(path, column) for column in file.schema_arrow.names}
                for number in range(file.num_row_groups):
                    columns = columns_of(path, number, file.read_row_group(number), first_of_content)
                    rows = len(next(iter(columns.values()), []))
                    for row in range(rows):
                        values = {column: cells[row] for column, cells in columns.items()}
                        for column, labels in classes.items():
                            if labels:
                                values[column] = labels.get(values[column])
                        yield f"{path}: row {first_row + row + 1}", values
                    first_row += rows
        except unreadable() as error:
            raise damaged(path, error) from error


def labels_of(path: Path, column: str) -> dict[int, str]:
    """Returns the class names of a column of class numbers; none where it holds something else."""
    try:
        return dict(enumerate(class_names(path, column) or ()))
    except BadInputError:
        return {}


def columns_of(path: Path, group: int, table: Any, seen: dict[str, PictureCell]) -> dict[str, list[Any]]:
    """Returns the values of a row group's columns, in order.

    Args:
        path: The file.
        group: Number of the row group.
        table: Its Arrow table.
        seen: The first place of every picture, by digest.
    """
    import pyarrow
    import pyarrow.compute

    columns: dict[str, list[Any]] = {}
    for name in table.column_names:
        values = table.column(name).combine_chunks()
        is_list = pyarrow.types.is_list(values.type) or pyarrow.types.is_large_list(values.type)
        if not is_of_pictures(values.type.value_type if is_list else values.type):
            columns[name] = plain_values(values)
            continue
        cells = picture_cells(path, name, group, values.flatten() if is_list else values, seen)
        if is_list:
            lengths = [0 if size is None else size for size in pyarrow.compute.list_value_length(values).to_pylist()]
            places = iter(cells)
            columns[name] = [[next(places) for _ in range(length)] for length in lengths]
        else:
            columns[name] = cells
    return columns


def plain_values(values: Any) -> list[Any]:
    """Returns an Arrow array's values: NaN, which stands for nothing in a table, is None.

    A number of 32 bits is the shortest one that means it: 0.1, and not 0.10000000149011612, would stand in an answer.
    """
    import pyarrow

    cells: list[Any] = values.to_pylist()
    if not pyarrow.types.is_floating(values.type):
        return cells
    narrow = values.type.to_pandas_dtype()
    return [None if cell is None or isnan(cell) else float(str(narrow(cell))) for cell in cells]


def is_of_pictures(kind: Any) -> bool:
    """Tells whether an Arrow type is that of encoded pictures: bytes, or ``{bytes, path}``."""
    import pyarrow

    types = pyarrow.types
    if types.is_struct(kind):
        place = kind.get_field_index(BYTES_FIELD)
        return place >= 0 and is_of_pictures(kind.field(place).type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def picture_cells(path: Path, column: str, group: int, values: Any, seen: dict[str, PictureCell]) -> list[Any]:
    """Returns a cell for every picture of a row group: a ``PictureCell``, a file's name, or None.

    Args:
        path: The file.
        column: Name of the column.
        group: Number of the row group.
        values: Its Arrow array.
        seen: The first place of every picture, by digest.
    """
    import pyarrow

    names, contents = [None] * len(values), values
    if pyarrow.types.is_struct(values.type):
        contents = values.field(BYTES_FIELD)
        if values.type.get_field_index(PATH_FIELD) >= 0:
            names = values.field(PATH_FIELD).to_pylist()
    cells: list[Any] = []
    for row, name in enumerate(names):
        content = contents[row].as_buffer() if contents[row].is_valid else None
        if content is None or not content.size:
            cells.append(name or None)
            continue
        digest = hashlib.sha256(content).hexdigest()
        image = StoredImage(path, column, group, row, content.size)
        cells.append(seen.setdefault(digest, PictureCell(image, digest)))
    return cells
