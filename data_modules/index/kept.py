"""A folder of indexes: each is made once, by one process while the others wait, and mapped by all of them.

What has not been used for the longest time is removed when all of them together become too large. A process that has
mapped a file keeps it although it is removed.
"""

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy

from data_modules.index.array_file import ArrayFile, open_arrays, write_arrays
from lightning_m2pt.errors import EnvironmentFailure
from lightning_m2pt.system.atomic_files import remove_dead_drafts
from lightning_m2pt.system.console import say
from lightning_m2pt.system.file_hashes import cache_folder
from lightning_m2pt.system.file_lock import locked

ENDING = ".safetensors"
NAME = re.compile(r"[a-z]+-[0-9a-f]{40}" + re.escape(ENDING))
"""What is ours in a folder, which may be somebody's folder of models."""
LARGEST_TOGETHER = 20 * 2**30
"""Bytes of all indexes of a folder; the one that was written last stays whatever its size."""
LARGE_BYTES = 16 * 2**20
"""Annotations of fewer bytes are read in less time than an index saves."""
LARGE_SAMPLES = 20_000
"""As many samples are encoded in a few seconds."""
BYTES_FOR_A_FILE = LARGE_BYTES // LARGE_SAMPLES
HINT = "free some space, or set data.index: false, which reads the set at every start"

log = logging.getLogger(__name__)


def index_folder_of(wanted: bool, named: str | None, size: int, large: int) -> Path | None:
    """Returns where a set's indexes are kept; None keeps none.

    Args:
        wanted: Whether indexes are wanted at all.
        named: The folder that the user names; None keeps the indexes of large sets alone, in the user's cache folder.
        size: Of the set.
        large: What counts as large.

    Raises:
        EnvironmentFailure: If nothing can be written in the folder that the user names.
    """
    if not wanted or (named is None and size < large):
        return None
    try:
        folder = Path(named) if named is not None else cache_folder().parent / "sets"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        if named is not None:
            raise EnvironmentFailure(
                f"no index can be kept there: {error}", where=f"data.index_folder: {named}", hint=HINT
            ) from error
        log.warning("nothing of the set is kept for the next start, its index cannot be written: %s", error)
        return None


def bytes_of_files(files: Sequence[Path] | None) -> int:
    """Returns the bytes of files together; 0 where one is missing, or nobody knows which there are.

    A folder is as large as its number of files: to open them takes longer than to read what is in them.
    """
    try:
        return sum(BYTES_FOR_A_FILE * files_in(path) if path.is_dir() else path.stat().st_size for path in files or ())
    except OSError:
        return 0


def files_in(folder: Path) -> int:
    """Returns the number of files in a folder and below."""
    return sum(len(names) for _, _, names in os.walk(folder))


def found(folder: Path, name: str) -> ArrayFile | None:
    """Returns an index that is there and whole, and notes that it was used."""
    path = folder / f"{name}{ENDING}"
    opened = open_arrays(path)
    if opened is not None:
        with contextlib.suppress(OSError):
            os.utime(path)
    return opened


def found_or_made(
    folder: Path, name: str, make: Callable[[], tuple[Mapping[str, numpy.ndarray], Mapping[str, str]] | None]
) -> ArrayFile | None:
    """Returns an index, which is made and written first if there is none, or a damaged one.

    Args:
        folder: Where indexes lie; made if it is not there.
        name: Stands for all that decides the index.
        make: Returns its arrays and notes; None if nothing may be kept.

    Returns:
        None if ``make`` does.

    Raises:
        EnvironmentFailure: If it cannot be written.
    """
    opened = found(folder, name)
    if opened is not None:
        return opened
    path = folder / f"{name}{ENDING}"
    with locked(path, lambda: say(f"waiting: another process is writing the index {path}")):
        opened = found(folder, name)  # another process wrote it while we waited
        if opened is not None:
            return opened
        made = make()
        if made is None:
            return None
        write(path, *made)
    opened = open_arrays(path)
    if opened is None:
        raise EnvironmentFailure("the index that was just written cannot be read", where=str(path), hint=HINT)
    return opened


def write(path: Path, arrays: Mapping[str, numpy.ndarray], notes: Mapping[str, str]) -> None:
    """Writes an index, and removes what has not been used for the longest time if all become too large.

    Raises:
        EnvironmentFailure: If it cannot be written.
    """
    remove_dead_drafts(path.parent)
    prune(path.parent, LARGEST_TOGETHER - sum(values.nbytes for values in arrays.values()))
    try:
        write_arrays(path, arrays, notes)
    except EnvironmentFailure as error:
        raise EnvironmentFailure(error.what, where=error.where, expected=error.expected, hint=HINT) from error


def prune(folder: Path, largest: int) -> None:
    """Removes indexes, those that were used least recently first, until the others have at most so many bytes.

    Other files, whatever their ending, are neither counted nor touched.
    """
    used = []
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if NAME.fullmatch(entry.name):
                status = entry.stat(follow_symlinks=False)
                used.append((status.st_mtime_ns, status.st_size, entry.path))
    together = sum(size for _, size, _ in used)
    for _, size, path in sorted(used):
        if together <= largest:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
            together -= size
