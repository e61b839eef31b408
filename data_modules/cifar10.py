"""CIFAR-10: small photographs of ten classes, asked as an open question.

Source: https://www.cs.toronto.edu/~kriz/cifar.html, ``cifar-10-python.tar.gz`` (Krizhevsky, 2009). No licence stated.

Layout, original: ``<root>/cifar-10-batches-py/`` with ``data_batch_1`` to ``data_batch_5``, ``test_batch`` and
``batches.meta``: pickled dictionaries of Python 2, read by a reader that runs nothing. ``data`` is (N, 3 S S) uint8,
all red values of a picture, then green, then blue; S is 32 in the real set and is taken from the file.

Layout, hub (``uoft-cs/cifar10``): Parquet files of the splits ``train`` and ``test``, with the columns ``img`` (or
``image``) and ``label``. The rows are taken to stand in the original order, which could not be looked at when this was
written: if they do, ids and data revision are those of the original form.

Counts: 50,000 training and 10,000 test pictures; airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck.

Split: ``test``. Contamination: Vision-Flan's CINIC-10 tasks contain CIFAR-10, with its test pictures.

Metric: ``closed_set`` (accuracy).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy

from data_modules.cifar import CIFAR, HUB_IMAGE_COLUMNS, names_in_batch, pictures_and_labels
from data_modules.labelled_pictures import LabelledPicture
from data_modules.reading.files import fake_image
from data_modules.reading.hub_files import (
    class_names,
    labelled_pictures,
)
from data_modules.reading.restricted_pickle import WritableValue, python2_pickle, read_batch
from lightning_m2pt.inputs.samples import Question

FOLDER = "cifar-10-batches-py"
BATCH_FILES = {"test": ("test_batch",), "train": tuple(f"data_batch_{number}" for number in range(1, 6))}
META_FILE = "batches.meta"
HUB_LABEL_COLUMN = "label"
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class CIFAR10(CIFAR):
    """One split of CIFAR-10.

    Args:
        root: Folder that holds ``cifar-10-batches-py``.
        template: Name of the conversation template.
        batch_size: Questions answered at once.
        max_new_tokens: Limit on an answer's tokens.
        limit: How many pictures to take, spread evenly over the set; None takes all.
        split: ``test`` or ``train``.
        question: What is asked of every picture.
    """

    name = "cifar10"
    folder_name = FOLDER

    @property
    def classes(self) -> list[str]:
        """The class names in ``batches.meta`` or in the hub's files.

        Raises:
            BadInputError: If they cannot be read.
        """
        if self.hub:
            return class_names(self.hub[0], HUB_LABEL_COLUMN) or list(NAMES)
        return names_in_batch(self.folder / META_FILE, "label_names")

    @staticmethod
    def write_fake(root: Path) -> None:
        """Writes six invented pictures of three classes, smaller than the real ones."""
        images = numpy.stack([fake_image(number, side=24) for number in range(6)])
        write_cifar10(root, images, [0, 1, 2, 0, 1, 2], ["airplane", "automobile", "cat"])

    def read(self) -> list[Question]:
        """Returns one question a picture.

        Raises:
            BadInputError: If a file is missing, damaged, or its pictures and labels do not agree.
        """
        classes = self.classes
        pictures = self.hub_pictures(len(classes)) if self.hub else self.original_pictures(len(classes))
        return self.asked(pictures, classes)

    def original_pictures(self, number_of_classes: int) -> Iterator[tuple[str, LabelledPicture]]:
        """Yields (id, (place, pixels, class number)) of the pickled files.

        Raises:
            BadInputError: If a file is missing, damaged, or its pictures and labels do not agree.
        """
        for name in BATCH_FILES[self.split]:
            path = self.folder / name
            images, labels = pictures_and_labels(read_batch(path), path, number_of_classes)
            for number, (image, label) in enumerate(zip(images, labels, strict=False), start=1):
                yield f"{name}/{number}", (f"{path}: record {number}", image, label)

    def hub_pictures(self, number_of_classes: int) -> Iterator[tuple[str, LabelledPicture]]:
        """Yields (id, (place, pixels, class number)) of the hub's files, with the ids of the original form.

        Raises:
            BadInputError: If a file or a picture is damaged, or a label is out of range.
        """
        rows = labelled_pictures(self.hub, HUB_IMAGE_COLUMNS, HUB_LABEL_COLUMN, number_of_classes)
        files = BATCH_FILES[self.split]
        for name, positions in zip(files, numpy.array_split(numpy.arange(len(rows)), len(files)), strict=True):
            for number, position in enumerate(positions, start=1):
                yield f"{name}/{number}", rows[position]


def write_cifar10(
    root: Path, images: numpy.ndarray, labels: Sequence[int], class_names: Sequence[str], split: str = "test"
) -> None:
    """Writes pictures in CIFAR-10's layout: planar pixels in pickles that Python 2 reads too.

    Args:
        root: Folder that gets ``cifar-10-batches-py``.
        images: (N, S, S, 3) uint8.
        labels: N class numbers.
        class_names: Names of the classes.
        split: ``test`` (one file) or ``train`` (five files).
    """
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    files = BATCH_FILES[split]
    for name, positions in zip(files, numpy.array_split(numpy.arange(len(images)), len(files)), strict=True):
        batch: dict[str, WritableValue] = {
            "batch_label": f"{split} batch",
            "labels": [int(labels[position]) for position in positions],
            "data": rows[positions],
            "filenames": [f"{split}_{position:05d}.png" for position in positions],
        }
        (folder / name).write_bytes(python2_pickle(batch))
    meta: dict[str, WritableValue] = {
        "num_cases_per_batch": len(images),
        "label_names": list(class_names),
        "num_vis": rows.shape[1],
    }
    (folder / META_FILE).write_bytes(python2_pickle(meta))
