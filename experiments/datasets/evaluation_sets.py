"""The evaluation sets by name, and where their folders are looked for."""

import os
from pathlib import Path

from data_modules.benchmark import BenchmarkDataModule
from data_modules.cifar10 import CIFAR10
from data_modules.cifar100 import CIFAR100
from data_modules.mme import MME, RELEASE_FOLDER
from data_modules.mnist import MNIST
from data_modules.pope import POPE
from data_modules.snli_ve import SNLIVE
from data_modules.text_vqa import TextVQA
from data_modules.vsr import VSR

EVALUATION_SETS: dict[str, type[BenchmarkDataModule]] = {
    "mme": MME,
    "vsr": VSR,
    "snli_ve": SNLIVE,
    "pope": POPE,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "mnist": MNIST,
    "text_vqa": TextVQA,
}
"""In the order of the published tables."""


def default_data_root() -> Path:
    """Returns the folder of all data: ``M2PT_DATA``, or ``data``."""
    return Path(os.environ.get("M2PT_DATA", "data"))


def folder_of(name: str, data_root: Path) -> Path:
    """Returns a set's folder, whether it is there or not: that of its name, or the one MME's archive unpacks to."""
    release = data_root / RELEASE_FOLDER
    return release if name == MME.name and release.is_dir() and not (data_root / name).is_dir() else data_root / name
