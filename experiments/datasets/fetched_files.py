"""What was fetched into a folder: ``source.json`` names the source, its revision and the SHA-256 of every file.

It is written last, so files are complete if it is there; it is what later fetches and checks have to agree with.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from data_modules.reading.files import checked_object, read_text, text_field
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.images import resolve_inside
from lightning_m2pt.system.atomic_files import sync_folder, write_atomically
from lightning_m2pt.system.strict_json import parse_json

RECORD_FILE = "source.json"
RECORD_FORMAT = 1
BLOCK = 2**20


@dataclass(frozen=True)
class FetchRecord:
    """Where files came from.

    Attributes:
        set: Name of the set.
        form: ``original`` or ``hub``.
        source: Address or repository.
        revision: Commit of the repository, or the MD5 sums of archives.
        files: SHA-256 of every file, by its path within the folder.
    """

    set: str
    form: str
    source: str
    revision: str
    files: Mapping[str, str]


def read_record(folder: Path) -> FetchRecord | None:
    """Returns what was fetched into a folder; None if nothing was.

    Raises:
        BadInputError: If the record is damaged.
    """
    path = folder / RECORD_FILE
    if not path.exists():
        return None
    content = checked_object(parse_json(read_text(path), path), str(path))
    files = checked_object(content.get("files"), f"{path}: files")
    if content.get("format") != RECORD_FORMAT:
        raise BadInputError(
            f"the format is {content.get('format')!r:.40}", where=f"{path}: format", expected=str(RECORD_FORMAT)
        )
    texts = {key: text_field(content, key, str(path)) for key in ("set", "form", "source", "revision")}
    for name in files:
        resolve_inside(folder, name, f"{path}: files")
        text_field(files, name, f"{path}: files")
    return FetchRecord(**texts, files=files)


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
        if not (folder / name).is_file() or sha256_of(folder / name) != expected
    ]


def refuse_differing_files(folder: Path) -> FetchRecord | None:
    """Returns what was fetched into a folder, if its files still have the recorded content.

    Raises:
        BadInputError: If the record or a file is damaged.
    """
    record = read_record(folder)
    differing = differing_files(folder, record) if record is not None else []
    if record is not None and differing:
        raise BadInputError(
            f"{len(differing)} of {len(record.files)} fetched files are missing or changed: {differing[0]}",
            where=str(folder / RECORD_FILE),
            expected="the files as they were fetched",
            hint=f"m2pt data fetch {record.set} --root {folder.parent}",
        )
    return record


def put_in_place(staging: Path, folder: Path, record: FetchRecord, old: FetchRecord | None) -> None:
    """Moves fetched files to where they belong, and writes the record.

    Every file is moved whole; one that this command did not bring is never replaced. Files of an earlier fetch that
    are not part of this one are removed last.

    Args:
        staging: Where the files are; on the same file system.
        folder: Where they shall be.
        record: What they are.
        old: What was fetched there before.

    Raises:
        BadInputError: If another file is in the way, or a name leads out of the folder.
        EnvironmentFailure: If the record cannot be written.
    """
    ours = old.files if old is not None else {}
    for name, expected in record.files.items():
        path = resolve_inside(folder, name, record.source)
        if path.exists() and name not in ours and (not path.is_file() or sha256_of(path) != expected):
            raise BadInputError(
                "another file of this name is there, which was not fetched",
                where=str(path),
                expected="nothing, or a file that an earlier fetch brought",
                hint="move it away, or name another folder with --root",
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


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
