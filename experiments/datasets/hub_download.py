"""Downloading for ``m2pt data fetch``: files of the Hugging Face hub, and the archives that torchvision knows."""

import fnmatch
import hashlib
import os
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.datasets.fetched_files import sha256_of
from experiments.datasets.sources import HubRepository, TorchvisionArchive
from lightning_m2pt.errors import BadInputError, EnvironmentFailure

OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
OFFLINE_VALUES = ("1", "ON", "YES", "TRUE")
REPOSITORY_TYPE = "dataset"


@dataclass(frozen=True)
class DownloadPlan:
    """What a repository has at one commit.

    Attributes:
        revision: The commit.
        sizes: Bytes of every file to fetch; None where the hub does not say.
        hashes: SHA-256 of every file for which the hub says it (the large ones).
        git_ids: Git's object id of every other file.
    """

    revision: str
    sizes: Mapping[str, int | None]
    hashes: Mapping[str, str]
    git_ids: Mapping[str, str]

    @property
    def megabytes(self) -> int:
        """Size of all files, rounded up."""
        return -(-sum(size or 0 for size in self.sizes.values()) // 10**6)


def refuse_offline() -> None:
    """Raises EnvironmentFailure if one of the hub's switches says that there is no network."""
    for name in OFFLINE_VARIABLES:
        if os.environ.get(name, "").upper() in OFFLINE_VALUES:
            raise EnvironmentFailure(
                "nothing can be fetched without a network",
                where=f"{name}={os.environ[name]}",
                expected="the variable unset, or files that were fetched before",
                hint="fetch on a machine with a network and copy the folder with its source.json",
            )


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

    try:
        info = huggingface_hub.dataset_info(repository.name, revision=revision, files_metadata=True)
    except (OSError, ValueError, HTTPError) as error:
        raise hub_failure(repository, revision, error) from error
    files = [
        file
        for file in info.siblings or []
        if any(fnmatch.fnmatch(file.rfilename, pattern) for pattern in repository.patterns)
    ]
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
    from huggingface_hub.errors import HTTPError

    refuse_full_disk(staging, sum(size or 0 for size in plan.sizes.values()))
    try:
        huggingface_hub.snapshot_download(
            repository.name,
            repo_type=REPOSITORY_TYPE,
            revision=plan.revision,
            local_dir=staging,
            allow_patterns=sorted(plan.sizes),
        )
    except (OSError, ValueError, HTTPError) as error:
        raise hub_failure(repository, plan.revision, error) from error
    return {name: checked_hash(staging, name, plan) for name in plan.sizes}


def checked_hash(staging: Path, name: str, plan: DownloadPlan) -> str:
    """Returns the SHA-256 of a fetched file.

    Raises:
        BadInputError: If the file is missing, or differs from what the hub says; a wrong file is removed.
    """
    path = staging / name
    size, expected, git_id = plan.sizes[name], plan.hashes.get(name), plan.git_ids.get(name)
    found = sha256_of(path) if path.is_file() else ""
    if (
        not found
        or (size is not None and path.stat().st_size != size)
        or found != (expected or found)
        or (git_id is not None and git_id_of(path) != git_id)
    ):
        path.unlink(missing_ok=True)
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
            hint="free some space, or name another folder with --root",
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


def archive_revision(archive: TorchvisionArchive) -> str:
    """Returns the MD5 sums that torchvision knows for an archive's files."""
    return " ".join(f"md5:{checksum}" for _, _, checksum in archive_files(archive))


def archive_files(archive: TorchvisionArchive) -> list[tuple[list[str], str, str]]:
    """Returns (addresses, file name, MD5 sum) of every file of an archive, as torchvision knows them."""
    from torchvision import datasets

    if archive.dataset == "MNIST":
        return [
            ([mirror + name for mirror in datasets.MNIST.mirrors], name, checksum)
            for name, checksum in datasets.MNIST.resources
        ]
    known = {"CIFAR10": datasets.CIFAR10, "CIFAR100": datasets.CIFAR100}[archive.dataset]
    return [([known.url], known.filename, known.tgz_md5)]


def download_archive(archive: TorchvisionArchive, staging: Path) -> dict[str, str]:
    """Fetches an archive's files, checks their MD5 sums, unpacks tar files, and returns the SHA-256 of what is left.

    Nothing is unpickled. A file that is complete already is not fetched again.

    Raises:
        EnvironmentFailure: If no address gives the file that is expected.
    """
    names: list[str] = []
    for addresses, name, checksum in archive_files(archive):
        download_from_any(addresses, name, checksum, staging)
        if name.endswith(".gz") and not name.endswith(".tar.gz"):
            names.append(name)
            continue
        with tarfile.open(staging / name) as tar:
            members = [member for member in tar.getmembers() if member.isfile()]
            tar.extractall(staging, members=members, filter="data")
        names += [member.name for member in members]
    return {name: sha256_of(staging / name) for name in names}


def download_from_any(addresses: list[str], name: str, checksum: str, staging: Path) -> None:
    """Fetches a file from the first address that gives the content expected.

    Raises:
        EnvironmentFailure: If none does.
    """
    from torchvision.datasets import utils

    reasons = []
    for address in addresses:
        try:
            utils.download_url(address, staging, name, checksum)
            return
        except (OSError, RuntimeError) as error:
            reasons.append(f"{type(error).__name__}: {error!s:.60}")
    raise EnvironmentFailure(
        f"{name} cannot be fetched: {'; '.join(reasons)}",
        where=addresses[0],
        expected=f"a network, and a file with MD5 {checksum}",
        hint="give the same command again, or fetch the hub's copy with --form hub",
    )
