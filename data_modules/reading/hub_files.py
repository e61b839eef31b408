"""Reading sets in the form of the Hugging Face hub: Parquet files with the pictures inside.

A split is one file or several numbered ones, ``<split>-00000-of-00004.parquet``, some with a hash before the ending,
in the root or one folder below it (``data/``, or one folder a configuration). Pictures are a column of
``{"bytes", "path"}``; the names of classes stand in the file's ``huggingface`` metadata. Nothing is downloaded here.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from data_modules.reading.files import checked_object
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.images import pixels_of
from lightning_m2pt.inputs.mistakes import made_of_each
from lightning_m2pt.inputs.stored_image import ROW_GROUPS, StoredImage, damaged, parquet_reader, unreadable
from lightning_m2pt.system.strict_json import parse_json

FILE_NAME = re.compile(r"(?P<split>.+?)(-(?P<number>\d{5})-of-(?P<total>\d{5}))?(-[0-9a-f]{16})?\.parquet")
LARGEST_SMALL_PICTURE = 256 * 256
"""Pixels; CIFAR's and MNIST's pictures have 1,024 and 784, and all of a split are held in memory."""


@dataclass(frozen=True)
class HubRow:
    """One row of a Parquet file.

    Attributes:
        file: The file it is in; not that of its picture, if an earlier file has the same one.
        source: ``FILE: row N`` for error messages, N from 1.
        record: Its values without the picture.
        image: Where its picture is. Rows with the same picture share the first one's.
        image_name: The file name stored with the picture, or empty.
    """

    file: Path
    source: str
    record: dict[str, Any]
    image: StoredImage
    image_name: str


def hub_files(root: Path, split: str) -> list[Path]:
    """Returns the Parquet files of a split in order; none if the set is not there in the hub's form.

    Raises:
        BadInputError: If one of several numbered files is missing, a folder has files of two copies of the split, or
            two folders have it.
    """
    found: dict[Path, dict[int, Path]] = {}
    totals: dict[Path, int] = {}
    for path in sorted([*root.glob("*.parquet"), *root.glob("*/*.parquet")]):
        match = FILE_NAME.fullmatch(path.name)
        if match is None or match["split"] != split or path.relative_to(root).parts[0].startswith("."):
            continue
        number, total = int(match["number"] or 0), int(match["total"] or 1)
        other = found.setdefault(path.parent, {}).setdefault(number, path)
        if other != path or totals.setdefault(path.parent, total) != total:
            raise BadInputError(
                f"{path.name} and {min(found[path.parent].values()).name} belong to two copies of the split {split!r}",
                where=str(path.parent),
                expected="the files of one revision",
                hint="move the others away",
            )
    if len(found) > 1:
        raise BadInputError(
            f"the split {split!r} is in {len(found)} folders: {', '.join(folder.name for folder in found)}",
            where=str(root),
            expected="one configuration of the set",
            hint="name one of the folders as `root`",
        )
    for folder, files in found.items():
        if sorted(files) != list(range(totals[folder])):
            raise BadInputError(
                f"{len(files)} of the split's {totals[folder]} Parquet files are there",
                where=str(folder),
                expected=f"{split}-00000-of-{totals[folder]:05d} and every one up to the last",
                hint="fetch the rest of them",
            )
        return [files[number] for number in sorted(files)]
    return []


def refuse_two_forms(root: Path, hub: Sequence[Path], original: Path) -> None:
    """Refuses a root that holds a set in the hub's form and in the original one: which of them counts?

    Raises:
        BadInputError: If both are there.
    """
    if hub and original.exists():
        raise BadInputError(
            f"the set is there twice: {original.relative_to(root)} and {hub[0].relative_to(root)}",
            where=str(root),
            expected="the original files, or the hub's",
            hint="move one of them to another folder",
        )


def refuse_neither_form(root: Path, hub: Sequence[Path], original: Path, split: str) -> None:
    """Refuses a root that holds a split neither in the hub's form nor in the original one.

    Raises:
        BadInputError: If neither is there.
    """
    if not hub and not original.exists():
        raise BadInputError(
            "the set is there in neither of its forms",
            where=str(root),
            expected=f"{original.relative_to(root)}, or the hub's Parquet files {split}-*.parquet",
            hint="check the data set's `root`",
        )


def picture_column(files: Sequence[Path], names: Sequence[str]) -> str:
    """Returns the first of some column names that the files have.

    Raises:
        BadInputError: If they have none of them.
    """
    present = column_names(files[0])
    for name in names:
        if name in present:
            return name
    raise BadInputError(
        f"there is no column of pictures among {', '.join(present)}", where=str(files[0]), expected=" or ".join(names)
    )


def column_names(path: Path) -> list[str]:
    """Returns the names of a Parquet file's columns.

    Raises:
        BadInputError: If it cannot be read.
        EnvironmentFailure: If pyarrow is not installed.
    """
    schema = schema_of(path)
    try:
        return list(schema.names)
    except unreadable() as error:
        raise damaged(path, error) from error


def schema_of(path: Path) -> Any:
    """Returns a Parquet file's Arrow schema.

    Raises:
        BadInputError: If it cannot be read.
        EnvironmentFailure: If pyarrow is not installed.
    """
    parquet = parquet_reader()
    try:
        return parquet.read_schema(path)
    except unreadable() as error:
        raise damaged(path, error) from error


def hub_rows(files: Sequence[Path], columns: Sequence[str], image_column: str) -> Iterator[HubRow | BadInputError]:
    """Yields the rows of a split, or the mistake in a row's place; of the pictures only their size is kept.

    Args:
        files: The split's Parquet files, in order.
        columns: Names of the columns to read.
        image_column: Name of the column of pictures.

    Raises:
        BadInputError: If a file is damaged or a column is missing.
        EnvironmentFailure: If pyarrow is not installed.
    """
    parquet = parquet_reader()
    first_of_content: dict[bytes, StoredImage] = {}
    for path in files:
        missing = [name for name in (*columns, image_column) if name not in column_names(path)]
        if missing:
            raise BadInputError(
                f"there is no column {', '.join(missing)}",
                where=str(path),
                expected=f"the columns {', '.join([*columns, image_column])}",
            )
        first_row = 0
        try:
            with parquet.ParquetFile(path, memory_map=True) as file:
                groups = [
                    file.read_row_group(number, columns=[*columns, f"{image_column}.path"]).to_pylist()
                    for number in range(file.num_row_groups)
                ]
        except unreadable() as error:
            raise damaged(path, error) from error
        for number, records in enumerate(groups):
            pictures = ROW_GROUPS.pictures(path, image_column, number)
            if len(pictures) != len(records):
                raise damaged(path, LookupError(f"{len(pictures)} pictures in {len(records)} rows"))
            for row, record in enumerate(records):
                where = f"{path}: row {first_row + row + 1}"
                content = pictures[row].as_buffer()
                name = (record.pop(image_column, None) or {}).get("path") or ""
                if content is None:
                    yield BadInputError(
                        "the row has no picture",
                        where=f"{where}: {image_column}",
                        expected="the picture's bytes, not only the name of a file",
                        hint=f"the row names {name!r:.80}" if name else "",
                    )
                    continue
                image = StoredImage(path, image_column, number, row, content.size)
                image = first_of_content.setdefault(hashlib.sha256(content).digest(), image)
                yield HubRow(path, where, record, image, str(name))
            first_row += len(records)


def class_names(path: Path, column: str) -> list[str] | None:
    """Returns the class names that a Parquet file's ``huggingface`` metadata give a column; None without metadata.

    Raises:
        BadInputError: If the metadata are there but hold no names.
    """
    stored = (schema_of(path).metadata or {}).get(b"huggingface")
    if stored is None:
        return None
    where = f"{path}: metadata"
    try:
        features = checked_object(parse_json(stored, where, first_line=0), where).get("info", {}).get("features", {})
        names = features[column].get("names")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadInputError(
            f"the column {column!r} has no class names", where=where, expected="a ClassLabel feature"
        ) from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise BadInputError(f"the column {column!r} has no class names", where=where, expected="a list of texts")
    return names


def labelled_pictures(
    files: Sequence[Path], image_columns: Sequence[str], label_column: str, number_of_classes: int
) -> list[tuple[str, numpy.ndarray, int]]:
    """Returns (``FILE: row N``, pixels, class number) of a set of small pictures of one size, decoded.

    Decoded, so that questions and fingerprint are those of the original form, which has no encoded pictures.

    Args:
        files: The split's Parquet files, in order.
        image_columns: Names that the column of pictures may have.
        label_column: Name of the column of class numbers.
        number_of_classes: Class numbers are below it.

    Raises:
        BadInputError: If a file or picture is damaged, a label out of range, or the sizes of pictures differ.
        EnvironmentFailure: If pyarrow is not installed.
    """
    shapes: list[tuple[int, ...]] = []

    def labelled(row: HubRow) -> tuple[str, numpy.ndarray, int]:
        label = row.record[label_column]
        if type(label) is not int or not 0 <= label < number_of_classes:
            raise BadInputError(
                f"the label is {label!r:.40}",
                where=f"{row.source}: {label_column}",
                expected=f"0 to {number_of_classes - 1}",
            )
        pixels = pixels_of(row.image, row.source, LARGEST_SMALL_PICTURE)
        shapes.append(pixels.shape)
        if pixels.shape != shapes[0]:
            raise BadInputError(
                f"the picture's shape is {pixels.shape}", where=row.source, expected=f"{shapes[0]} as the first one's"
            )
        return row.source, pixels, label

    return made_of_each(hub_rows(files, [label_column], picture_column(files, image_columns)), labelled)
