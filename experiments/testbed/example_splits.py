"""Small training splits of the held-out sets: the worked examples of ``m2pt evaluate --shots``.

They are made as the test splits are, of other scenes and of the digit scans that tuning sees: no scan of a test picture
is ever shown with its answer.
"""

from dataclasses import replace
from pathlib import Path

from data_modules.cifar10 import write_cifar10
from data_modules.cifar100 import write_cifar100
from data_modules.mnist import write_mnist
from data_modules.snli_ve import write_snli_ve
from data_modules.text_vqa import write_text_vqa
from data_modules.vsr import write_vsr
from experiments.testbed import evaluation_sets
from experiments.testbed.rendering import ScanSplit
from experiments.testbed.sizes import TestbedSizes
from experiments.testbed.vocabulary import NAMES, SHAPES

TRAINING_SPLIT = "train"
SEED_DISTANCE = 1_000_003
"""Added to the seed: the scenes are other ones than those of the test splits."""
NAME_PREFIX = "example_"
"""The pictures of all splits of a set lie in one folder."""


def write_example_splits(root: Path, seed: int, sizes: TestbedSizes) -> None:
    """Writes the training split of every set that has one officially.

    Args:
        root: Folder of the sets' folders.
        seed: Decides every byte.
        sizes: ``examples`` of each set are written.
    """
    seed += SEED_DISTANCE
    few = replace(
        sizes,
        vsr_statements=sizes.examples,
        classification_images=sizes.examples,
        hypotheses=sizes.examples,
        number_questions=sizes.examples,
    )
    scans = ScanSplit.TRAINING
    statements = evaluation_sets.vsr_items(seed, few, scans)
    write_vsr(
        root / "vsr", [replace(item, image_name=NAME_PREFIX + item.image_name) for item in statements], TRAINING_SPLIT
    )
    hypotheses = evaluation_sets.snli_ve_items(seed, few, scans)
    write_snli_ve(
        root / "snli_ve",
        [
            replace(item, image_id=NAME_PREFIX + item.image_id, pair_id=NAME_PREFIX + item.pair_id)
            for item in hypotheses
        ],
        TRAINING_SPLIT,
    )
    numbers = evaluation_sets.text_vqa_items(seed, few, scans)
    write_text_vqa(
        root / "text_vqa", [replace(item, image_id=NAME_PREFIX + item.image_id) for item in numbers], TRAINING_SPLIT
    )
    shapes = evaluation_sets.cifar10_pictures(seed, few, scans)
    write_cifar10(root / "cifar10", shapes.images, shapes.labels, SHAPES, TRAINING_SPLIT)
    fine = evaluation_sets.cifar100_pictures(seed, few, scans)
    coarse = evaluation_sets.coarse_labels(fine.labels)
    write_cifar100(
        root / "cifar100",
        fine.images,
        fine.labels,
        coarse,
        evaluation_sets.FINE_CLASSES,
        NAMES,
        split=TRAINING_SPLIT,
    )
    digits = evaluation_sets.mnist_pictures(seed, few, scans)
    write_mnist(root / "mnist", digits.images, digits.labels, TRAINING_SPLIT)
