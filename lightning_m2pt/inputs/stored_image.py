"""Pictures inside Parquet files: encoded bytes that stay on disk until somebody looks at one.

Source: the form in which Hugging Face ``datasets`` stores a picture: a column of ``{"bytes": ..., "path": ...}``.

Parquet can only be read by whole row groups. The pictures of the groups read last are kept, up to a limit, because
questions come in the order of their length and not of the file.
"""

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

from typing_extensions import override

from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.inputs.encoded_picture import EncodedPicture

LARGEST_ROW_GROUP = 2**31 - 1
"""Bytes of pictures in one row group; Arrow's binary arrays hold no more."""

KEPT_BYTES = 512 * 2**20
"""Row groups are kept up to so many bytes of pictures, in every process that reads pictures."""

BYTES_FIELD = "bytes"


@dataclass(frozen=True)
class StoredImage(EncodedPicture):
    """One picture inside a Parquet file.

    Attributes:
        path: The file.
        column: Name of the column of pictures, or of lists of pictures.
        row_group: Number of the row group, from 0.
        row: Number of the row within its group, from 0; of lists of pictures, number of the picture.
        size: Bytes of the encoded picture.
    """

    path: Path
    column: str
    row_group: int
    row: int
    size: int

    @property
    @override
    def label(self) -> str:
        return self.column

    def __str__(self) -> str:
        """Returns what names the picture, uniquely within its set."""
        return f"{self.path}: row {self.row} of row group {self.row_group}: {self.column}"

    @override
    def read(self) -> bytes:
        pictures = ROW_GROUPS.pictures(self.path, self.column, self.row_group)
        content = pictures[self.row].as_py() if self.row < len(pictures) else None
        if content is None or len(content) != self.size:
            raise BadInputError("the file has changed since its annotations were read", where=str(self))
        return bytes(content)


class RowGroups:
    """The pictures of the row groups read last.

    Args:
        kept_bytes: Groups are dropped, the oldest first, when they hold more together; one is always kept.
    """

    def __init__(self, kept_bytes: int) -> None:
        self.kept_bytes = kept_bytes
        self.groups: OrderedDict[tuple[Path, str, int, int, int], Any] = OrderedDict()
        self.lock = Lock()

    def pictures(self, path: Path, column: str, row_group: int) -> Any:  # noqa: ANN401  (pyarrow is optional)
        """Returns the encoded pictures of a row group as an Arrow array of binary values.

        Raises:
            BadInputError: If they cannot be read.
            EnvironmentFailure: If pyarrow is not installed.
        """
        try:
            status = os.stat(path)
        except OSError as error:
            raise damaged(path, error) from error
        # A file that is replaced while a process runs must not lend its old pictures to the new rows.
        key = (path, column, row_group, status.st_mtime_ns, status.st_size)
        with self.lock:
            if key not in self.groups:
                self.groups[key] = read_pictures(path, column, row_group)
                while len(self.groups) > 1 and sum(group.nbytes for group in self.groups.values()) > self.kept_bytes:
                    self.groups.popitem(last=False)
            self.groups.move_to_end(key)
            return self.groups[key]


ROW_GROUPS = RowGroups(KEPT_BYTES)


def read_pictures(path: Path, column: str, row_group: int) -> Any:  # noqa: ANN401  (pyarrow is optional)
    """Returns the encoded pictures of one row group as an Arrow array of binary values.

    Raises:
        BadInputError: If the file is damaged, the column holds no pictures, or the group is too large.
        EnvironmentFailure: If pyarrow is not installed.
    """
    parquet = parquet_reader()
    import pyarrow

    where = f"{path}: {column}"
    try:
        with parquet.ParquetFile(path, memory_map=True) as file:
            group = file.metadata.row_group(row_group)
            columns = [group.column(number) for number in range(group.num_columns)]
            of_pictures = [part for part in columns if part.path_in_schema.split(".")[0] == column]
            if sum(part.total_uncompressed_size for part in of_pictures) > LARGEST_ROW_GROUP:
                raise BadInputError(
                    f"row group {row_group} is too large",
                    where=where,
                    expected=f"at most {LARGEST_ROW_GROUP} bytes of pictures in a row group",
                    hint="write the file again with row groups of 100 rows",
                )
            pictures = file.read_row_group(row_group, columns=[column]).column(column).combine_chunks()
    except unreadable() as error:
        raise damaged(path, error) from error
    if pyarrow.types.is_list(pictures.type) or pyarrow.types.is_large_list(pictures.type):
        pictures = pictures.flatten()
    if pyarrow.types.is_struct(pictures.type) and pictures.type.get_field_index(BYTES_FIELD) >= 0:
        pictures = pictures.field(BYTES_FIELD)
    if not (pyarrow.types.is_binary(pictures.type) or pyarrow.types.is_large_binary(pictures.type)):
        raise BadInputError(
            f"the column holds {pictures.type!s:.60}", where=where, expected="encoded pictures: {bytes, path}"
        )
    return pictures


def parquet_reader() -> ModuleType:
    """Returns ``pyarrow.parquet``.

    Raises:
        EnvironmentFailure: If pyarrow is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise EnvironmentFailure(
            "Parquet files need pyarrow, which is not installed",
            where="pyarrow",
            expected="the extra `hub`, or a set in its original form",
            hint="pip install -c constraints.txt -e '.[hub]'",
        ) from error
    reader: ModuleType = pyarrow.parquet
    return reader


def unreadable() -> tuple[type[Exception], ...]:
    """Returns what pyarrow raises for a damaged file; names in one may not even be text."""
    import pyarrow

    return pyarrow.ArrowException, OSError, LookupError, UnicodeDecodeError


def damaged(path: Path, error: Exception) -> BadInputError:
    """Returns the error about a Parquet file that cannot be read."""
    return BadInputError(
        f"the Parquet file cannot be read: {error!s:.120}", where=str(path), hint="copy or download the file again"
    )
