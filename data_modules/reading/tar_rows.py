"""Rows of tar shards in the form of WebDataset: files of one name but for the ending are one row.

Source: https://github.com/webdataset/webdataset. What stands before the first full stop of a file's name is the row's
key, what stands behind it says what the file is: a picture, ``json`` with columns, or a text. The library reads shards
from the front to the back; here a picture's place is kept, so that any sample can be read at any time and a run goes
on where it stopped by arithmetic. A compressed file has no places, and is refused.
"""

import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_modules.reading.captioned_folder import PICTURE_ENDINGS
from data_modules.reading.files import Record, checked_object
from data_modules.reading.sources import TAR
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.tar_picture import TarPicture
from lightning_m2pt.system.strict_json import parse_json

PICTURES = frozenset(ending.removeprefix(".") for ending in PICTURE_ENDINGS)
TEXTS = {"txt": "text", "text": "text", "caption": "caption", "cls": "cls"}
"""Columns that texts of these endings become."""
NAME = re.compile(r"(?P<key>(?:.*/)?[^./]+)\.(?P<kind>[^/]*)")
OF_THE_LIBRARY = re.compile(r"__[^/]*__($|/)")
"""Files about a shard, which the library passes over."""
KEY, IMAGE, JSON = "id", "image", "json"
BLOCK = 512
BLOCKS_AT_ONCE = 2**20
LARGEST_TEXT = 64 * 2**20


def tar_files(folder: Path, split: str | None) -> list[Path]:
    """Returns the shards of a folder in the order of their names; none if there are none.

    Args:
        folder: The folder.
        split: Only shards whose names begin so; None takes all.

    Raises:
        BadInputError: If there is no shard of the split.
    """
    files = sorted(path for path in folder.glob(f"*{TAR}") if not path.name.startswith("."))
    of_split = [path for path in files if split is None or re.match(rf"{re.escape(split)}([-_.]|\d)", path.name)]
    if files and not of_split:
        raise BadInputError(
            f"no shard's name begins with {split!r:.60}", where=str(folder), expected=f"such as {files[0].name}"
        )
    return of_split


def tar_rows(files: Sequence[Path]) -> Iterator[Record | BadInputError]:
    """Yields (``FILE: KEY``, row), or the mistake in a row's place; a picture's cell is a ``TarPicture``.

    Several pictures of a row are a list, in the order of the file. Files of other endings are passed over.

    Raises:
        BadInputError: If a shard is damaged, compressed or cut off.
    """
    for path in files:
        key, members = "", list[tuple[str, tarfile.TarInfo, bytes | None]]()
        for info, content in members_of(path):
            match = NAME.fullmatch(info.name)
            if match is None or OF_THE_LIBRARY.match(info.name):
                continue
            if match["key"] != key and members:
                yield row_of(path, key, members)
                members = []
            key = match["key"]
            members.append((match["kind"].lower(), info, content))
        if members:
            yield row_of(path, key, members)


def members_of(path: Path) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
    """Yields a shard's files in order, and the content of those that are texts.

    Raises:
        BadInputError: If it is damaged, compressed or cut off.
    """
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                tar.members = []  # type: ignore[attr-defined]  # it would keep every one
                kind = info.name.rpartition(".")[2].lower()
                if info.issym() or info.islnk():
                    refuse_link(info, kind, path)
                if not info.isreg() or info.issparse():
                    continue
                is_text = (kind == JSON or kind in TEXTS) and info.size <= LARGEST_TEXT
                reader = tar.extractfile(info) if is_text else None
                yield info, None if reader is None else reader.read()
            end = tar.offset
            file.seek(end)
            # The library that reads a tar file takes a damaged header for its end.
            if file.read(BLOCK) != bytes(BLOCK):
                raise BadInputError(
                    f"the tar file is damaged or cut off at byte {end}", where=str(path), hint="copy it again"
                )
            while rest := file.read(BLOCKS_AT_ONCE):
                if rest.count(0) != len(rest):
                    raise BadInputError(
                        f"something stands behind the end of the tar file, which is at byte {end}",
                        where=str(path),
                        expected="one tar file",
                        hint="files that were joined are read up to the end of the first: make a shard of each",
                    )
    except BadInputError:
        raise
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise BadInputError(
            f"the tar file cannot be read: {error!s:.120}",
            where=str(path),
            expected="a tar file that is not compressed",
            hint="unpack a compressed one, or copy a damaged one again",
        ) from error


def refuse_link(info: tarfile.TarInfo, kind: str, path: Path) -> None:
    """Refuses a link among the files that are read: its row would be one without a picture, or without a text.

    Raises:
        BadInputError: If it is one of them.
    """
    if kind in PICTURES or kind == JSON or kind in TEXTS:
        raise BadInputError(
            f"{info.name:.80} is a link to {info.linkname:.80}",
            where=str(path),
            expected="files",
            hint="tar --dereference --hard-dereference writes the files themselves",
        )


def row_of(
    path: Path, key: str, members: Sequence[tuple[str, tarfile.TarInfo, bytes | None]]
) -> Record | BadInputError:
    """Returns a row of the files of one key, or what is wrong with it."""
    where = f"{path}: {key}"
    row: dict[str, Any] = {KEY: key}
    pictures: list[TarPicture] = []
    kinds = [kind for kind, _, _ in members]
    try:
        twice = next((kind for kind in kinds if kinds.count(kind) > 1), None)
        if twice is not None:
            raise BadInputError(f"there are two files {key}.{twice}"[:200], where=where, expected="one of each ending")
        columns = [column_of(kind) for kind in kinds]
        if any(column is not None and columns.count(column) > 1 for column in columns):
            raise BadInputError(
                f"the row has the files {', '.join(f'{key}.{kind}' for kind in kinds)[:160]}",
                where=where,
                expected="one text of each kind",
                hint="a row's key ends at the first full stop of a name",
            )
        for kind, info, content in members:
            last = kind.rpartition(".")[2]
            if last in PICTURES:
                pictures.append(TarPicture(path, info.name, info.offset_data, info.size))
            elif last == JSON or last in TEXTS:
                text = text_of(content, info, where)
                if last == JSON:
                    row |= checked_object(parse_json(text, f"{path}: {info.name}", first_line=0), where)
                else:
                    row[TEXTS[last]] = text.strip()
    except BadInputError as error:
        return error
    if pictures:
        row[IMAGE] = pictures[0] if len(pictures) == 1 else pictures
    return where, row


def column_of(kind: str) -> str | None:
    """Returns the column that a file of an ending becomes, or that it holds several; None for pictures and others."""
    last = kind.rpartition(".")[2]
    return JSON if last == JSON else TEXTS.get(last)


def text_of(content: bytes | None, info: tarfile.TarInfo, where: str) -> str:
    """Returns a text's letters.

    Raises:
        BadInputError: If it is not UTF-8, or too large to have been read.
    """
    if content is None:
        raise BadInputError(
            f"{info.name:.80} has {info.size} bytes", where=where, expected=f"a text of at most {LARGEST_TEXT}"
        )
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{info.name:.80} is not UTF-8 text", where=where, expected="UTF-8 text") from error
