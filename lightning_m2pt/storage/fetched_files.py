"""What was fetched into a folder: ``source.json`` names the source, its revision and the SHA-256 of every file.

It is written last, so files are complete if it is there; it is what later fetches and checks have to agree with.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.inputs.images import resolve_inside
from lightning_m2pt.system.atomic_files import sync_folder, write_atomically
from lightning_m2pt.system.file_hashes import read_and_hash
from lightning_m2pt.system.strict_json import parse_json

RECORD_FILE = "source.json"
RECORD_FORMAT = 1
LETTERS_OF_REVISION = 12


@dataclass(frozen=True)
class FetchRecord:
    """Where files came from.

    Attributes:
        set: Name of the set; of a model its repository's.
        form: ``original`` or ``hub``; ``model`` of a model.
        source: Address or repository.
        revision: Commit of the repository, or the MD5 sums of archives.
        files: SHA-256 of every file, by its path within the folder.
    """

    set: str
    form: str
    source: str
    revision: str
    files: Mapping[str, str]


def refuse_no_folder(folder: Path, option: str) -> None:
    """Refuses a place of something else before anything is fetched for it.

    Args:
        folder: Where files shall be.
        option: The flag that names another folder, for messages.

    Raises:
        BadInputError: If a file is there.
    """
    if folder.exists() and not folder.is_dir():
        raise BadInputError(
            "this is no folder", where=str(folder), expected="a folder, or nothing", hint=f"name another with {option}"
        )


def read_record(folder: Path) -> FetchRecord | None:
    """Returns what was fetched into a folder; None if nothing was.

    Raises:
        BadInputError: If the record is damaged.
    """
    path = folder / RECORD_FILE
    if not path.exists():
        return None
    content = json_object(record_content(path), str(path))
    files = json_object(content.get("files"), f"{path}: files")
    if content.get("format") != RECORD_FORMAT:
        raise BadInputError(
            f"the format is {content.get('format')!r:.40}", where=f"{path}: format", expected=str(RECORD_FORMAT)
        )
    texts = {key: filled_text(content, key, str(path)) for key in ("set", "form", "source", "revision")}
    for name in files:
        resolve_inside(folder, name, f"{path}: files")
        filled_text(files, name, f"{path}: files")
    return FetchRecord(**texts, files=files)


def record_content(path: Path) -> object:
    """Returns what a record holds.

    Raises:
        BadInputError: If it is no file or no JSON.
        EnvironmentFailure: If it may not be read.
    """
    if not path.is_file():
        raise BadInputError("this is not a regular file", where=str(path), expected="a text file")
    try:
        return parse_json(path.read_bytes(), path)
    except PermissionError as error:
        raise EnvironmentFailure("no permission to read the file", where=str(path)) from error


def json_object(value: object, where: str) -> dict[str, Any]:
    """Returns a JSON object.

    Raises:
        BadInputError: If it is anything else.
    """
    if not isinstance(value, dict):
        raise BadInputError(f"the record is a {type(value).__name__}", where=where, expected="a JSON object")
    return value


def filled_text(content: Mapping[str, Any], key: str, where: str) -> str:
    """Returns a text that is not empty.

    Raises:
        BadInputError: If the key is missing or holds anything else.
    """
    value = content.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadInputError(f"the value is {value!r:.40}", where=f"{where}: {key!r:.80}", expected="a text")
    return value


def write_record(folder: Path, record: FetchRecord) -> None:
    """Writes what was fetched; the last step of a fetch.

    Raises:
        EnvironmentFailure: If it cannot be written.
    """
    content = {"format": RECORD_FORMAT} | asdict(record)
    write_atomically(folder / RECORD_FILE, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def differing_files(folder: Path, record: FetchRecord) -> list[str]:
    """Returns the fetched files that are missing or have another content than when they were fetched."""
    return [
        name
        for name, expected in record.files.items()
        if not (folder / name).is_file() or read_and_hash(folder / name) != expected
    ]


def put_in_place(staging: Path, folder: Path, record: FetchRecord, old: FetchRecord | None, option: str) -> None:
    """Moves fetched files to where they belong, and writes the record.

    Every file is moved whole; one that this command did not bring is never replaced. Files of an earlier fetch that
    are not part of this one are removed last.

    Args:
        staging: Where the files are; on the same file system.
        folder: Where they shall be.
        record: What they are.
        old: What was fetched there before.
        option: The flag that names another folder, for messages.

    Raises:
        BadInputError: If another file is in the way, or a name leads out of the folder.
        EnvironmentFailure: If the record cannot be written.
    """
    ours = old.files if old is not None else {}
    for name, expected in record.files.items():
        path = resolve_inside(folder, name, record.source)
        if path.exists() and name not in ours and (not path.is_file() or read_and_hash(path) != expected):
            raise BadInputError(
                "another file of this name is there, which was not fetched",
                where=str(path),
                expected="nothing, or a file that an earlier fetch brought",
                hint=f"move it away, or name another folder with {option}",
            )
    for name in record.files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (staging / name).replace(path)
        sync_folder(path.parent)
    write_record(folder, record)
    for name in ours:
        if name not in record.files:
            (folder / name).unlink(missing_ok=True)


def refuse_other_content(record: FetchRecord, old: FetchRecord, folder: Path) -> None:
    """Refuses files that are not those of the recorded revision.

    Raises:
        BadInputError: If the revision, or the content of a file, is another one.
    """
    changed = [name for name in {**old.files, **record.files} if old.files.get(name) != record.files.get(name)]
    if record.revision != old.revision or changed:
        what = f"{len(changed)} files, such as {min(changed)}," if changed else "the revision"
        raise BadInputError(
            f"{what} at the source differ from what was fetched first",
            where=str(folder),
            expected=described(old),
            hint="--revision moves to another revision on purpose",
        )


def described(record: FetchRecord) -> str:
    """Returns what was fetched, in a few words."""
    return f"{record.source} at {record.revision[:LETTERS_OF_REVISION]}, {len(record.files)} files"
