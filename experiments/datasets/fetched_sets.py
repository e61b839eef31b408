"""A set's folder as ``m2pt data fetch`` left it, before anything is read from it."""

from pathlib import Path

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.fetched_files import RECORD_FILE, FetchRecord, differing_files, read_record


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
