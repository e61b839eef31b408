"""Renders the testbed's data in the official on-disk formats: ``m2pt data testbed``."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from data_modules.cifar10 import write_cifar10
from data_modules.cifar100 import write_cifar100
from data_modules.mme import write_mme
from data_modules.mnist import write_mnist
from data_modules.pope import write_pope
from data_modules.snli_ve import write_snli_ve
from data_modules.text_vqa import write_text_vqa
from data_modules.vision_flan import write_vision_flan
from data_modules.vsr import write_vsr
from experiments.testbed import evaluation_sets
from experiments.testbed.example_splits import write_example_splits
from experiments.testbed.manifest import MANIFEST, SET_NAMES, is_complete, write_manifest
from experiments.testbed.sizes import TestbedSizes
from experiments.testbed.tuning_set import (
    TRAINING_PART,
    VALIDATION_ANNOTATION,
    VALIDATION_PART,
    tuning_records,
)
from experiments.testbed.vocabulary import NAMES, SHAPES
from lightning_m2pt.errors import EnvironmentFailure


def _write_tuning(root: Path, seed: int, sizes: TestbedSizes) -> None:
    records = tuning_records(seed, TRAINING_PART, sizes.training_images, sizes.questions_per_image)
    write_vision_flan(root / "vision_flan", list(records))


def _write_validation(root: Path, seed: int, sizes: TestbedSizes) -> None:
    records = tuning_records(seed, VALIDATION_PART, sizes.validation_images, sizes.questions_per_image)
    write_vision_flan(root / "vision_flan", list(records), annotation_file=VALIDATION_ANNOTATION)


def _write_cifar10(root: Path, seed: int, sizes: TestbedSizes) -> None:
    pictures = evaluation_sets.cifar10_pictures(seed, sizes)
    write_cifar10(root / "cifar10", pictures.images, pictures.labels, SHAPES)


def _write_cifar100(root: Path, seed: int, sizes: TestbedSizes) -> None:
    pictures = evaluation_sets.cifar100_pictures(seed, sizes)
    coarse_labels = evaluation_sets.coarse_labels(pictures.labels)
    write_cifar100(
        root / "cifar100", pictures.images, pictures.labels, coarse_labels, evaluation_sets.FINE_CLASSES, NAMES
    )


def _write_mnist(root: Path, seed: int, sizes: TestbedSizes) -> None:
    pictures = evaluation_sets.mnist_pictures(seed, sizes)
    write_mnist(root / "mnist", pictures.images, pictures.labels)


SETS: dict[str, Callable[[Path, int, TestbedSizes], None]] = {
    "vision_flan": _write_tuning,
    "vision_flan validation": _write_validation,
    "mme": lambda root, seed, sizes: write_mme(root / "mme", evaluation_sets.mme_items(seed, sizes)),
    "vsr": lambda root, seed, sizes: write_vsr(root / "vsr", evaluation_sets.vsr_items(seed, sizes)),
    "pope": lambda root, seed, sizes: write_pope(root / "pope", evaluation_sets.pope_items(seed, sizes)),
    "snli_ve": lambda root, seed, sizes: write_snli_ve(root / "snli_ve", evaluation_sets.snli_ve_items(seed, sizes)),
    "text_vqa": lambda root, seed, sizes: write_text_vqa(
        root / "text_vqa", evaluation_sets.text_vqa_items(seed, sizes)
    ),
    "cifar10": _write_cifar10,
    "cifar100": _write_cifar100,
    "mnist": _write_mnist,
    "examples": write_example_splits,
}
"""What writes each set below the root; ``examples`` adds training splits to sets that are there."""


def render_testbed(root: Path, seed: int, *, force: bool = False) -> None:
    """Renders the testbed's data unless they are complete, and says so.

    Raises:
        BadInputError: If the root holds another seed's or version's data.
        EnvironmentFailure: If a file cannot be written.
    """
    console = Console(stderr=True)
    if not force and is_complete(root, seed):
        console.print(f"complete: {root / MANIFEST} (seed {seed}); --force renders again")
        return
    try:
        write_testbed(root, seed, TestbedSizes(), console)
    except OSError as error:
        raise EnvironmentFailure(
            error.strerror or str(error), where=str(error.filename or root), expected="a folder to write to"
        ) from error
    console.print(f"written: {root / MANIFEST} (seed {seed})")


def write_testbed(root: Path, seed: int, sizes: TestbedSizes, console: Console) -> None:
    """Renders every set and writes the manifest last.

    Args:
        root: Folder to write to.
        seed: Decides every byte.
        sizes: How much of everything.
        console: Where the progress bar goes.
    """
    (root / MANIFEST).unlink(missing_ok=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(SETS))
        for name, write in SETS.items():
            progress.update(task, description=name)
            write(root, seed, sizes)
            progress.advance(task)
    write_manifest(root, seed, SET_NAMES, set_folders())


def set_folders() -> list[str]:
    """Returns the names of the folders below the root."""
    return sorted({name.split()[0] for name in SETS} - {"examples"})
