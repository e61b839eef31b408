"""Where rows are read from: a file, a folder, or a data set of the hub that was fetched before. No network is used."""

from dataclasses import dataclass
from pathlib import Path

from lightning_m2pt.backbones.hub_ids import cached_folder
from lightning_m2pt.configuration.paths import HUB
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.images import resolve_inside

TEXT_ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
PARQUET, TAR = ".parquet", ".tar"
READABLE = (*TEXT_ENDINGS, PARQUET, TAR)
NAME_PARTS = 2


@dataclass(frozen=True)
class Source:
    """A file or folder to read rows from.

    Attributes:
        path: The file or folder.
        folder: The folder that names of pictures stand in, where nothing else is said.
        bounds: The folder that pictures may not lead out of: ``folder``, but for the hub's cache, whose files are
            links to others beside it.
        split: Which of several splits in a folder is read; None where there is one.
    """

    path: Path
    folder: Path
    bounds: Path
    split: str | None = None


def source_of(file: str, revision: str | None = None, split: str | None = None, key: str = "data.file") -> Source:
    """Returns what a configuration's words stand for.

    Args:
        file: A file, a folder, ``hub:OWNER/NAME``, or ``hub:OWNER/NAME/FILE`` for one of a repository's files.
        revision: Branch, tag or commit of the hub's repository; None takes ``main`` as it was fetched last.
        split: Which of several splits in a folder is read.
        key: The setting, for messages.

    Raises:
        BadInputError: If it is not there, or of no form that is read.
    """
    if not file.startswith(HUB):
        if revision is not None:
            raise BadInputError(
                "a file on disk has no revision",
                where=key.replace("file", "revision"),
                expected=f"a file alone, or {HUB}OWNER/NAME with a revision",
            )
        path = Path(file)
        if not path.exists():
            raise BadInputError("the file does not exist", where=f"{key}: {path}", expected=expected_forms())
        folder = path if path.is_dir() else path.parent
        return checked(Source(path, folder, folder, split), key)
    words = file.removeprefix(HUB).split("/")
    folder = cached_folder("/".join(words[:NAME_PARTS]), revision, key, "dataset")
    bounds = folder.parent.parent  # snapshots/COMMIT/FILE is a link into blobs/
    inside = "/".join(words[NAME_PARTS:])
    path = picture_below(Source(folder, folder, bounds), folder, inside, key) if inside else folder
    if not path.exists():
        raise BadInputError(
            f"the repository holds no {inside:.80}", where=key, expected=", ".join(sorted(readable_in(folder)))[:200]
        )
    return checked(Source(path, folder, bounds, split), key)


def checked(source: Source, key: str) -> Source:
    """Returns a source if its ending is one that is read; a folder is looked through by whoever reads it.

    Raises:
        BadInputError: If it is not.
    """
    if source.path.is_file() and source.path.suffix.lower() not in READABLE:
        raise BadInputError(
            f"{source.path.name:.80} ends in none of the endings that are read",
            where=f"{key}: {source.path}",
            expected=expected_forms(),
        )
    if source.split is not None and not source.path.is_dir():
        raise BadInputError("one file has no splits", where=key.replace("file", "split"), expected="no split")
    return source


def expected_forms() -> str:
    """Returns words for what is read."""
    return f"{', '.join(READABLE)}, a folder, or {HUB}OWNER/NAME"


def readable_in(folder: Path) -> list[str]:
    """Returns the names of the files in a folder that are read, but for Parquet's."""
    return [path.name for path in folder.iterdir() if path.suffix.lower() in TEXT_ENDINGS and path.is_file()]


def picture_below(source: Source, folder: Path, name: str, where: str) -> Path:
    """Returns the path of a file named in a row; nothing is opened.

    Args:
        source: Where the row is from.
        folder: What the name stands in.
        name: The name as written, relative to the folder; an absolute one that lies in it will do.
        where: ``FILE:LINE`` or record, for the error.

    Raises:
        BadInputError: If the name leads out of the folder, or is none.
    """
    if name.startswith("/") and Path(name).is_relative_to(folder.absolute()):
        name = Path(name).relative_to(folder.absolute()).as_posix()
    if source.bounds != source.folder and folder.is_relative_to(source.bounds):
        inside = folder.relative_to(source.bounds).as_posix()
        return resolve_inside(source.bounds, f"{inside}/{name}", where)
    return resolve_inside(folder, name, where)
