"""The schema of experiment files, kept in the user's cache folder, for the next command to read without torch.

Its name is a hash of everything it was made from: the sources of this project's classes, and the versions of the
packages whose signatures stand in it. It is plain JSON, read strictly. What does not fit is as if it were not there: it
can make a command slower, and never make one accept anything.
"""

import contextlib
import hashlib
import json
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from experiments.configuration.catalogue import CHECKOUT, LIBRARY
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.file_hashes import cache_folder
from lightning_m2pt.system.strict_json import parse_json

FORMAT = 1
SOURCES = (LIBRARY, CHECKOUT / "data_modules", CHECKOUT / "callbacks", CHECKOUT / "experiments" / "configuration")
PACKAGES = ("torch", "lightning", "jsonargparse")
MOST_BYTES = 4_000_000
KEPT = 8
"""Every change of a source makes another one; the oldest go."""


def stored_schema() -> dict[str, Any] | None:
    """Returns the schema of these sources and packages; None if it has not been kept, or is not what was kept."""
    key = key_of_description()
    try:
        path = file_of(key)
        if not path.is_file() or path.stat().st_size > MOST_BYTES:  # a pipe would wait for ever
            return None
        content = parse_json(path.read_bytes(), path)
    except (OSError, BadInputError, RuntimeError):  # RuntimeError: there is no home folder
        return None
    if not isinstance(content, Mapping) or content.get("key") != key:
        return None
    schema = content.get("schema")
    return schema if isinstance(schema, dict) and content.get("sha256") == hash_of(schema) else None


@cache
def keep_schema() -> None:
    """Makes the schema and keeps it, unless it is there; what the disk refuses costs the next command time alone."""
    if stored_schema() is not None:
        return
    from experiments.configuration.description import experiment_schema

    key, schema = key_of_description(), experiment_schema()
    content = json.dumps({"key": key, "sha256": hash_of(schema), "schema": schema}) + "\n"
    with contextlib.suppress(OSError, EnvironmentFailure, RuntimeError):
        file_of(key).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file_of(key), content.encode())
        kept = sorted(file_of(key).parent.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in kept[KEPT:]:
            path.unlink(missing_ok=True)


def file_of(key: str) -> Path:
    """Returns where a schema is kept."""
    return cache_folder().parent / "schema" / f"{key[:32]}.json"


def key_of_description() -> str:
    """Returns the hash of everything a schema is made from."""
    digest = hashlib.sha256(json.dumps([FORMAT, sys.version, {name: version_of(name) for name in PACKAGES}]).encode())
    for folder in SOURCES:
        for path in sorted(folder.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder.parent)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def version_of(package: str) -> str:
    """Returns an installed package's version; empty if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def hash_of(schema: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a schema."""
    return hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest()
