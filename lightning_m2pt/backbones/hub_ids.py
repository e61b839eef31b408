"""From what a configuration calls a model to the folder it lies in: a folder, or a hub id that was fetched before.

The hub's cache is read as a folder. Nothing here uses a network.
"""

import re
from pathlib import Path
from typing import Literal, TypeAlias

from lightning_m2pt.configuration.paths import HUB
from lightning_m2pt.errors import BadInputError

ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")
"""``owner/name``, or one of the hub's oldest models without an owner."""
LONGEST_ID = 96
REVISION = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)*")
"""A branch, tag or commit; pull requests are ``refs/pr/NUMBER``. No part of it begins with a dot, so none leads out."""
COMMIT = re.compile(r"[0-9a-f]{40}")
DEFAULT_REVISION = "main"

Kind: TypeAlias = Literal["model", "dataset"]
"""What a repository of the hub holds."""
FETCH: dict[Kind, str] = {"model": "m2pt models fetch", "dataset": "hf download --repo-type dataset"}
"""What brings one here; the second is the hub's own command, which comes with its library."""
MADE_OF_WHEELS = ("smollm2_dinov2",)
"""Folders of pairs that are not of the hub, and which the same verb makes."""


def model_folder(model: str, revision: str | None, key: str) -> Path:
    """Returns the folder of a model.

    Args:
        model: A folder, or ``hub:owner/name``.
        revision: Branch, tag or commit of the hub's repository; None takes the branch ``main`` as it was when it was
            fetched last. A folder has none.
        key: The setting, for messages.

    Raises:
        BadInputError: If there is no such folder, or the model is not in the hub's cache on this machine.
    """
    if model.startswith(HUB):
        return cached_folder(model.removeprefix(HUB), revision, key)
    if revision is not None:
        raise BadInputError(
            f"{model:.200} is a folder, and a folder has no revision",
            where=key,
            expected=f"a folder alone, or {HUB}OWNER/NAME with a revision",
        )
    folder = Path(model)
    if not folder.is_dir():
        hint = f"a model of the hub is written {HUB}OWNER/NAME; {FETCH['model']} OWNER/NAME brings it here"
        if folder.parent.name in MADE_OF_WHEELS:
            hint = f"{FETCH['model']} {folder.parent.name} --to {folder.parent} makes it of two wheels (183 MB)"
        raise BadInputError(
            f"{model:.200} is {'a file' if folder.is_file() else 'not there'}",
            where=key,
            expected="the folder of a model, with its config.json",
            hint=hint,
        )
    return folder


def cached_folder(name: str, revision: str | None, key: str, kind: Kind = "model") -> Path:
    """Returns the folder in the hub's cache that holds a model or a data set at a revision.

    Args:
        name: ``owner/name``.
        revision: Branch, tag or commit; None for ``main``.
        key: The setting, for messages.
        kind: What the repository holds.

    Raises:
        BadInputError: If the name or revision is none, or was not fetched.
    """
    refuse_odd_name(name, revision, key)
    place = cache_of(name, kind)
    commit = commit_of(place, revision or DEFAULT_REVISION)
    found = None if commit is None else place / "snapshots" / commit
    if found is None or not found.is_dir():
        wanted = f" at {revision}" if revision else ""
        raise BadInputError(
            f"{name}{wanted} is not on this machine",
            where=key,
            expected=f"a fetched {kind} in {place}",
            hint=f"{FETCH[kind]} {name}{f' --revision {revision}' if revision else ''}",
        )
    return found


def refuse_odd_name(name: str, revision: str | None, key: str) -> None:
    """Refuses what is no name of a repository or revision, such as one that leads out of the cache.

    Raises:
        BadInputError: Naming it.
    """
    if len(name) > LONGEST_ID or not ID.fullmatch(name) or "--" in name or ".." in name:
        raise BadInputError(f"{name!r:.80} is no name of the hub", where=key, expected="OWNER/NAME, as its page has it")
    if revision is not None and not REVISION.fullmatch(revision):
        raise BadInputError(
            f"{revision!r:.80} is no revision", where=key, expected="a branch, tag or commit of the repository"
        )


def cache_of(name: str, kind: Kind = "model") -> Path:
    """Returns where the hub's cache keeps a repository (``HF_HUB_CACHE``, ``HF_HOME``), whether or not it does."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser() / f"{kind}s--{name.replace('/', '--')}"


def commit_of(place: Path, revision: str) -> str | None:
    """Returns the commit that a revision stood for when it was fetched last; None if it was not.

    Args:
        place: The repository's folder in the cache.
        revision: Branch, tag or commit.
    """
    if COMMIT.fullmatch(revision):
        return revision
    try:
        commit = (place / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if COMMIT.fullmatch(commit) else None
