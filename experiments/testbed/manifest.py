"""The testbed's manifest: whether its data are there and whole; nothing that draws is imported for the question."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from data_modules.reading.files import checked_object
from experiments.testbed.world_version import WORLD_VERSION
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.strict_json import parse_json

MANIFEST = "testbed.json"
SET_NAMES = (
    "vision_flan",
    "vision_flan validation",
    "mme",
    "vsr",
    "pope",
    "snli_ve",
    "text_vqa",
    "cifar10",
    "cifar100",
    "mnist",
    "examples",
)
"""What is rendered, in this order; ``examples`` adds training splits to sets that are there."""
PROMPTING_FOLDER = "prompting"
"""Below the testbed's root: what prompts in pixel space are trained on, with a manifest of its own."""
PROMPTING_SETS = ("cifar10", "mnist", "pope", "counting")


def is_complete(root: Path, seed: int, sets: Sequence[str] = SET_NAMES, command: str = "") -> bool:
    """Returns whether the manifest is there and every file has the hash it states.

    Args:
        root: The manifest's folder.
        seed: The seed that the data should be of.
        sets: What should have been rendered.
        command: What renders it; empty is ``m2pt data testbed`` in this root.

    Raises:
        BadInputError: If the data are of another seed or version.
    """
    path = root / MANIFEST
    if not path.exists():
        return False
    manifest = checked_object(parse_json(path.read_bytes(), path), str(path))
    found = {key: manifest.get(key) for key in ("seed", "world_version")}
    wanted = {"seed": seed, "world_version": WORLD_VERSION}
    if found != wanted:
        raise BadInputError(
            f"holds data of {found}",
            where=str(path),
            expected=str(wanted),
            hint=f"`{command or f'm2pt data testbed --root {root}'} --seed {seed} --force` renders again",
        )
    # Data of before a set was added are of the same world: what is there comes out the same again.
    files = manifest.get("files")
    if manifest.get("sets") != list(sets) or not isinstance(files, dict) or not files:
        return False
    return all((root / name).is_file() and file_sha256(root / name) == value for name, value in files.items())


def write_manifest(root: Path, seed: int, sets: Sequence[str], folders: Sequence[str]) -> None:
    """Writes the manifest of what has been rendered.

    Args:
        root: Where it goes.
        seed: What was rendered with.
        sets: What was rendered.
        folders: Folders below the root whose files it states.
    """
    files = sorted(path for folder in folders for path in (root / folder).rglob("*") if path.is_file())
    hashes = {path.relative_to(root).as_posix(): file_sha256(path) for path in files}
    manifest = {"seed": seed, "world_version": WORLD_VERSION, "sets": list(sets), "files": hashes}
    partial = root / f"{MANIFEST}.partial"
    partial.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, root / MANIFEST)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
