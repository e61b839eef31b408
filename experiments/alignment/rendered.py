"""The pictures and captions of an alignment on disk: rendered once, then found by what decides them."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from experiments.alignment.caption_sets import write_caption_sets
from experiments.alignment.settings import ALIGNMENT_VERSION, AlignmentSettings
from experiments.testbed.manifest import file_sha256
from experiments.testbed.world_version import WORLD_VERSION
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.console import say
from lightning_m2pt.system.file_lock import locked
from lightning_m2pt.system.strict_json import parse_json

CAPTIONS = "captions"
RECORD = "captions.json"


def rendered_captions(settings: AlignmentSettings, work: Path) -> Path:
    """Renders both parts into ``WORK/captions``, unless they are there whole; returns the folder.

    Args:
        settings: The recipe.
        work: Where it goes.

    Raises:
        BadInputError: If something else lies there.
    """
    folder = work / CAPTIONS
    decides = {
        "seed": settings.seed,
        "world_version": WORLD_VERSION,
        "alignment_version": ALIGNMENT_VERSION,
        "pictures": settings.pictures,
        "unseen": settings.unseen,
    }
    work.mkdir(parents=True, exist_ok=True)
    with locked(folder, lambda: say("waiting: another process is rendering the captions")):
        render_unless_whole(settings, folder, decides)
    return folder


def render_unless_whole(settings: AlignmentSettings, folder: Path, decides: dict[str, Any]) -> None:
    """Renders both parts into a folder that nobody else writes, first beside it.

    Raises:
        BadInputError: If something else lies there.
    """
    if is_whole(folder, decides):
        say(f"complete: {folder}")
        return
    if folder.exists() and not (folder / RECORD).is_file():
        raise BadInputError(
            "this command did not write what lies there",
            where=str(folder),
            expected="no such folder, or rendered captions",
            hint="move it away, or take another --work",
        )
    say(f"rendering {settings.pictures:,} pictures with captions, and {settings.unseen:,} unseen ones")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_caption_sets(partial, settings.seed, settings.pictures, settings.unseen)
    hashes = {path.relative_to(partial).as_posix(): file_sha256(path) for path in files_below(partial)}
    (partial / RECORD).write_text(json.dumps({**decides, "files": hashes}, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def is_whole(folder: Path, decides: dict[str, Any]) -> bool:
    """Tells whether a folder holds what was rendered of these settings, every file as it was."""
    path = folder / RECORD
    if not path.is_file():
        return False
    record = parse_json(path.read_bytes(), path)
    files = record.pop("files", None) if isinstance(record, dict) else None
    if record != decides or not isinstance(files, dict) or not files:
        return False
    return all((folder / name).is_file() and file_sha256(folder / name) == value for name, value in files.items())


def files_below(folder: Path) -> list[Path]:
    """Returns all files of a folder, in the order of their paths."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
