"""What decides an index: whatever differs in it makes another one."""

import hashlib
import inspect
import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import lightning_m2pt.inputs
from data_modules.reading.captioned_folder import PICTURE_ENDINGS
from lightning_m2pt.inputs.bound_template import BoundTemplate
from lightning_m2pt.system.file_hashes import sha256_of_file, stamp_of

FORM = 1
"""Of the index itself; the code that fills it is part of every name by its source."""
PLAIN = (str, int, float, bool, type(None))
NOT_READING = frozenset(
    (
        *("self", "template", "batch_size", "micro_batch_size", "max_text_length", "num_workers", "order_seed"),
        *("group_by_length", "index", "index_folder"),
    )
)
"""Arguments of instruction sets that do not decide which samples there are."""
WITH_PICTURES = (".parquet", ".tar")
"""Endings of files that are too large to be read at every start."""
OURS = (Path(__file__).parents[1], Path(lightning_m2pt.inputs.__path__[0]))
"""Folders whose code makes samples, tokens and layouts of files."""


def name_of(parts: Mapping[str, Any]) -> str:
    """Returns a name that stands for plain values."""
    text = json.dumps({"form": FORM, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def reading_identity(owner: object, files: Sequence[Path]) -> dict[str, Any] | None:
    """Returns all that decides what an instruction set reads; None where that is not known.

    Args:
        owner: The set, which keeps what it is given under the names of its constructor's arguments.
        files: All files and folders that it reads, pictures left out.
    """
    kind = type(owner)
    settings = settings_of(owner)
    code = code_digest(kind)
    if settings is None or code is None or not all(path.is_file() or path.is_dir() for path in files):
        return None
    return {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "code": code,
        "settings": settings,
        "folder": str(Path.cwd()),
        "files": [[str(path), file_identity(path)] for path in files],
    }


def file_identity(path: Path) -> list[Any]:
    """Returns what stands for a file's content: its hash, or where pictures are inside its size, times and inode.

    Of a folder it is that of all files in it and below, without those of pictures: they decide nothing that is read.
    """
    if path.is_dir():
        return [digest_of_listing(path)]
    return list(stamp_of(path)) if path.suffix.lower() in WITH_PICTURES else [sha256_of_file(path)]


def digest_of_listing(folder: Path) -> str:
    """Returns the SHA-256 over names, and over sizes, times and inodes of what is no picture, in a folder and below."""
    digest = hashlib.sha256()
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(place, name)
            is_stated = path.suffix.lower() not in PICTURE_ENDINGS and path.is_file()
            said = list(stamp_of(path)) if is_stated else []
            digest.update(json.dumps([str(path), *said]).encode() + b"\n")
    return digest.hexdigest()


def settings_of(owner: object) -> dict[str, Any] | None:
    """Returns what a set was made with; None if it does not keep all of it, or keeps more than plain values."""
    settings = {}
    for name, parameter in inspect.signature(type(owner).__init__).parameters.items():
        if name in NOT_READING:
            continue
        if not hasattr(owner, name) or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            return None
        value = getattr(owner, name)
        value = str(value) if isinstance(value, Path) else value
        if not is_plain(value):
            return None
        settings[name] = value
    return settings


def is_plain(value: object) -> bool:
    """Tells whether a value is made of texts, numbers, lists and mappings alone."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return isinstance(value, PLAIN)


def code_digest(kind: type) -> str | None:
    """Returns the SHA-256 of the code that makes samples, that of a class and all it is made of; None without files."""
    modules = [sys.modules.get(base.__module__) for base in kind.__mro__ if not is_of_a_library(base)]
    places = [getattr(module, "__file__", None) for module in modules]
    if None in places:
        return None
    own = [str(place) for place in places]
    return digest_of_files(tuple(dict.fromkeys([*own, *(str(path) for folder in OURS for path in python(folder))])))


def is_of_a_library(base: type) -> bool:
    """Tells whether a class is Python's or of an installed library, which come with a version."""
    return base.__module__.split(".")[0] in {"builtins", "abc", "lightning", "torch", "typing", "lightning_utilities"}


def python(folder: Path) -> list[Path]:
    """Returns all Python files below a folder."""
    return sorted(folder.rglob("*.py"))


@lru_cache(maxsize=16)
def digest_of_files(paths: tuple[str, ...]) -> str | None:
    """Returns the SHA-256 of files' contents; None if one cannot be read. Code does not change while it runs."""
    digest = hashlib.sha256()
    try:
        for path in paths:
            digest.update(Path(path).read_bytes() + b"\0")
    except OSError:
        return None
    return digest.hexdigest()


def template_identity(template: BoundTemplate) -> list[Any]:
    """Returns what decides how conversations become text, for one tokenizer."""
    form = "" if template.digest else repr(template.form)
    return [template.name, template.digest, form, template.begin_ids, template.end_token_ids, template.image_token]
