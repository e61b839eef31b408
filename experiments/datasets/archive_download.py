"""Downloading for ``m2pt data fetch``: the archives that torchvision knows."""

import tarfile
from pathlib import Path

from experiments.datasets.sources import TorchvisionArchive
from lightning_m2pt.errors import EnvironmentFailure
from lightning_m2pt.system.file_hashes import read_and_hash


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
    return {name: read_and_hash(staging / name) for name in names}


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
