"""Downloading files of the Hugging Face hub, checked against what the hub says of them.

Only ``m2pt data fetch``, ``m2pt models fetch`` and ``load(..., fetch=True)`` come here; beside them only ``m2pt push``
uses a network.
"""

import fnmatch
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.system import hub_patience
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.download_progress import shown_progress
from lightning_m2pt.system.file_hashes import read_and_hash
from lightning_m2pt.system.hub_patience import patient_hub

OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
OFFLINE_VALUES = ("1", "ON", "YES", "TRUE")


@dataclass(frozen=True)
class HubRepository:
    """A repository of the Hugging Face hub.

    Attributes:
        name: ``owner/name``.
        patterns: Which of its files are fetched; a star stands for folders, too.
        kind: What the repository holds.
        refused: Which of these are left out all the same.
    """

    name: str
    patterns: tuple[str, ...]
    kind: Literal["dataset", "model"] = "dataset"
    refused: tuple[str, ...] = ()

    def wants(self, file: str) -> bool:
        """Tells whether a file is to be fetched."""
        return matches(file, self.patterns) and not matches(file, self.refused)


@dataclass(frozen=True)
class DownloadPlan:
    """What a repository has at one commit.

    Attributes:
        revision: The commit.
        sizes: Bytes of every file to fetch; None where the hub does not say.
        hashes: SHA-256 of every file for which the hub says it (the large ones).
        git_ids: Git's object id of every other file.
        left_out: The repository's other files.
    """

    revision: str
    sizes: Mapping[str, int | None]
    hashes: Mapping[str, str]
    git_ids: Mapping[str, str]
    left_out: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Bytes of all files, as far as the hub says."""
        return sum(size or 0 for size in self.sizes.values())

    @property
    def megabytes(self) -> int:
        """Size of all files, rounded up."""
        return -(-self.total // 10**6)


def matches(file: str, patterns: tuple[str, ...]) -> bool:
    """Tells whether a file's path fits one of some patterns."""
    return any(fnmatch.fnmatch(file, pattern) for pattern in patterns)


def refuse_offline(
    what: str = "nothing can be fetched without a network",
    expected: str = "the variable unset, or files that were fetched before",
    hint: str = "fetch on a machine with a network and copy the folder with its source.json",
) -> None:
    """Raises EnvironmentFailure if one of the hub's switches says that there is no network.

    Args:
        what: What cannot be done.
        expected: What would let it be done.
        hint: What can be done instead.
    """
    for name in OFFLINE_VARIABLES:
        if os.environ.get(name, "").upper() in OFFLINE_VALUES:
            raise EnvironmentFailure(what, where=f"{name}={os.environ[name]}", expected=expected, hint=hint)


def planned(repository: HubRepository, revision: str | None) -> DownloadPlan:
    """Returns what would be fetched, after asking the hub.

    Args:
        repository: The repository.
        revision: Branch, tag or commit; None takes the default branch.

    Raises:
        BadInputError: If there is no such revision, or nothing to fetch in it.
        EnvironmentFailure: If the hub cannot be reached or does not give the files out.
    """
    import huggingface_hub
    from huggingface_hub.errors import HTTPError

    ask: Any = huggingface_hub.dataset_info if repository.kind == "dataset" else huggingface_hub.model_info
    try:
        with patient_hub():
            info = ask(
                repository.name, revision=revision, files_metadata=True, timeout=hub_patience.SECONDS_WITHOUT_A_BYTE
            )
    except (OSError, ValueError, LookupError, TypeError, HTTPError) as error:
        raise hub_failure(repository, revision, error) from error
    files = [file for file in info.siblings or [] if repository.wants(file.rfilename)]
    if not files or info.sha is None:
        raise BadInputError(
            "the repository has none of the files to fetch",
            where=f"{repository.name} at {revision or 'its newest commit'}",
            expected=" and ".join(repository.patterns),
            hint="the repository may have been rearranged; name an older commit with --revision",
        )
    return DownloadPlan(
        info.sha,
        {file.rfilename: file.size for file in files},
        {file.rfilename: file.lfs.sha256 for file in files if file.lfs is not None},
        {file.rfilename: file.blob_id for file in files if file.lfs is None and file.blob_id is not None},
        tuple(file.rfilename for file in info.siblings or [] if not repository.wants(file.rfilename)),
    )


def download_from_hub(repository: HubRepository, plan: DownloadPlan, staging: Path) -> dict[str, str]:
    """Fetches the planned files, but for those an earlier try fetched whole, and returns their SHA-256.

    Args:
        repository: The repository.
        plan: What to fetch.
        staging: Folder to fetch into.

    Raises:
        BadInputError: If a file's content is not what the hub says.
        EnvironmentFailure: If there is no room, or the hub cannot be reached.
    """
    import huggingface_hub

    with downloading(repository, plan, staging):
        huggingface_hub.snapshot_download(
            repository.name,
            repo_type=repository.kind,
            revision=plan.revision,
            local_dir=staging,
            allow_patterns=sorted(plan.sizes),
        )
    return {name: checked_hash(staging, name, plan) for name in plan.sizes}


def download_to_cache(repository: HubRepository, plan: DownloadPlan, cache: Path, place: Path, revision: str) -> Path:
    """Fetches the planned files into the hub's own cache, and returns the folder of the commit.

    The branch or tag leads to the commit only when all files are there and are what the hub says.

    Args:
        repository: The repository.
        plan: What to fetch.
        cache: The hub's cache.
        place: The repository's folder in it.
        revision: Branch, tag or commit that was asked for.

    Raises:
        BadInputError: If a file's content is not what the hub says.
        EnvironmentFailure: If there is no room, or the hub cannot be reached.
    """
    import huggingface_hub

    place.mkdir(parents=True, exist_ok=True)
    with downloading(repository, plan, place):
        huggingface_hub.snapshot_download(
            repository.name,
            repo_type=repository.kind,
            revision=plan.revision,
            cache_dir=cache,
            allow_patterns=sorted(plan.sizes),
        )
    folder = place / "snapshots" / plan.revision
    for name in plan.sizes:
        checked_hash(folder, name, plan)
    if revision != plan.revision:
        reference = place / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(reference, plan.revision.encode())
    return folder


@contextmanager
def downloading(repository: HubRepository, plan: DownloadPlan, filled: Path) -> Iterator[None]:
    """Looks for room, shows the progress, and says what a failure means.

    Args:
        repository: The repository.
        plan: What is fetched.
        filled: The folder that the download fills.

    Raises:
        EnvironmentFailure: If there is no room, or the hub cannot be reached.
    """
    from huggingface_hub.errors import HTTPError

    refuse_full_disk(filled, plan.total)
    try:
        with shown_progress(filled, plan.total), patient_hub():
            yield
    except (OSError, ValueError, LookupError, TypeError, HTTPError) as error:
        raise hub_failure(repository, plan.revision, error) from error


def checked_hash(staging: Path, name: str, plan: DownloadPlan) -> str:
    """Returns the SHA-256 of a fetched file.

    Raises:
        BadInputError: If the file is missing, or differs from what the hub says; a wrong file is removed.
    """
    path = staging / name
    size, expected, git_id = plan.sizes[name], plan.hashes.get(name), plan.git_ids.get(name)
    found = read_and_hash(path) if path.is_file() else ""
    if (
        not found
        or (size is not None and path.stat().st_size != size)
        or found != (expected or found)
        or (git_id is not None and git_id_of(path) != git_id)
    ):
        for each in {path.resolve(), path}:  # the hub's cache keeps a file apart from its name
            each.unlink(missing_ok=True)
        raise BadInputError(
            "the fetched file is not what the hub says it is" if found else "the file was not fetched",
            where=str(path),
            expected=f"{size} bytes with {f'SHA-256 {expected}' if expected else f'Git id {git_id}'}",
            hint="give the same command again",
        )
    return found


def git_id_of(path: Path) -> str:
    """Returns the id that Git gives a file's content; for small files, which are read whole."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def refuse_full_disk(folder: Path, needed: int) -> None:
    """Raises EnvironmentFailure if there is less room than files need; what was fetched before counts as needed."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise EnvironmentFailure(
            f"the disk has {free:,} free bytes",
            where=str(folder),
            expected=f"{needed:,}",
            hint="free some space, or name another folder",
        )


def hub_failure(repository: HubRepository, revision: str | None, error: Exception) -> Exception:
    """Returns what a failure of the hub's library means to the user."""
    from huggingface_hub import errors

    where = f"{repository.name} at {revision or 'its newest commit'}"
    if isinstance(error, errors.GatedRepoError):
        return EnvironmentFailure(
            "the repository asks for consent to its terms", where=where, hint="accept them on its page, `hf auth login`"
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError | errors.HFValidationError):
        return BadInputError(
            "there is no such repository or revision", where=where, expected="a branch, tag or commit of it"
        )
    return EnvironmentFailure(
        f"the hub cannot be reached: {type(error).__name__}: {error!s:.120}",
        where=where,
        expected="a network, or HF_ENDPOINT naming a mirror",
        hint="give the same command again: whole files are kept, one that was cut off starts again",
    )
