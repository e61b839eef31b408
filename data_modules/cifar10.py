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

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy

from data_modules.benchmark import BenchmarkDataModule, TemplateName
from data_modules.reading.files import fake_image
from data_modules.reading.hub_files import (
    class_names,
    hub_files,
    labelled_pictures,
    refuse_neither_form,
    refuse_two_forms,
)
from data_modules.reading.restricted_pickle import BatchValue, WritableValue, python2_pickle, read_batch
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.mistakes import refuse
from lightning_m2pt.inputs.samples import Question

FOLDER = "cifar-10-batches-py"
BATCH_FILES = {"test": ("test_batch",), "train": tuple(f"data_batch_{number}" for number in range(1, 6))}
META_FILE = "batches.meta"
HUB_IMAGE_COLUMNS = ("img", "image")
HUB_LABEL_COLUMN = "label"
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
QUESTION = "What is the main object in this image?"


class CIFAR10(BenchmarkDataModule):
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
    rules = ("closed_set",)

    def __init__(
        self,
        root: FilePath,
        template: TemplateName,
        batch_size: int = 32,
        max_new_tokens: int = 50,
        limit: int | None = None,
        split: Literal["test", "train"] = "test",
        question: str = QUESTION,
    ) -> None:
        super().__init__(root, template, batch_size, max_new_tokens, limit)
        self.split = split
        self.question = question

    @property
    def folder(self) -> Path:
        """Where the pickled files are."""
        return self.root / FOLDER

    @property
    def hub(self) -> list[Path]:
        """The hub's files of the split; none if the original ones are there.

        Raises:
            BadInputError: If both forms are there, or neither.
        """
        files = hub_files(self.root, self.split)
        refuse_two_forms(self.root, files, self.folder)
        refuse_neither_form(self.root, files, self.folder, self.split)
        return files

    @property
    def classes(self) -> list[str]:
        """The class names in ``batches.meta`` or in the hub's files.

        Raises:
            BadInputError: If they cannot be read.
        """
        if self.hub:
            return class_names(self.hub[0], HUB_LABEL_COLUMN) or list(NAMES)
        path = self.folder / META_FILE
        names = read_batch(path).get("label_names")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
            raise BadInputError("there are no class names", where=f"{path}: label_names", expected="a list of texts")
        return names

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
        return [
            Question(
                id=name,
                subtask="",
                text=self.question,
                target=classes[label],
                image=image,
                image_id=name,
                source=where,
            )
            for name, where, image, label in pictures
        ]

    def original_pictures(self, number_of_classes: int) -> Iterator[tuple[str, str, numpy.ndarray, int]]:
        """Yields (id, place, pixels, class number) of the pickled files.

        Raises:
            BadInputError: If a file is missing, damaged, or its pictures and labels do not agree.
        """
        for name in BATCH_FILES[self.split]:
            path = self.folder / name
            images, labels = pictures_and_labels(read_batch(path), path, number_of_classes)
            for number, (image, label) in enumerate(zip(images, labels, strict=False), start=1):
                yield f"{name}/{number}", f"{path}: record {number}", image, label

    def hub_pictures(self, number_of_classes: int) -> Iterator[tuple[str, str, numpy.ndarray, int]]:
        """Yields (id, place, pixels, class number) of the hub's files, with the ids of the original form.

        Raises:
            BadInputError: If a file or a picture is damaged, or a label is out of range.
        """
        rows = labelled_pictures(self.hub, HUB_IMAGE_COLUMNS, HUB_LABEL_COLUMN, number_of_classes)
        files = BATCH_FILES[self.split]
        for name, positions in zip(files, numpy.array_split(numpy.arange(len(rows)), len(files)), strict=True):
            for number, position in enumerate(positions, start=1):
                yield f"{name}/{number}", *rows[position]


def pictures_and_labels(
    batch: dict[str, BatchValue], path: Path, number_of_classes: int, labels_key: str = "labels"
) -> tuple[numpy.ndarray, list[int]]:
    """Returns (N, S, S, 3) uint8 pictures and N class numbers of a batch.

    Args:
        batch: The dictionary in the file.
        path: The file, for errors.
        number_of_classes: Class numbers are below it.
        labels_key: Where the class numbers are.

    Raises:
        BadInputError: If they are missing, of another form, or do not agree.
    """
    data, labels = batch.get("data"), batch.get(labels_key)
    is_planar = isinstance(data, numpy.ndarray) and data.dtype == numpy.uint8 and data.ndim == 2
    side = math.isqrt(data.shape[1] // 3) if isinstance(data, numpy.ndarray) and is_planar else 0
    if not isinstance(data, numpy.ndarray) or side == 0 or data.shape[1] != 3 * side * side:
        raise BadInputError("there are no pictures", where=f"{path}: data", expected="(N, 3 S S) values of uint8")
    if not isinstance(labels, list) or len(labels) != len(data):
        raise BadInputError(
            "the number of labels differs from that of the pictures",
            where=f"{path}: {labels_key}",
            expected=f"{len(data)} labels",
        )
    mistakes = [
        BadInputError(
            f"the label is {label!r:.40}",
            where=f"{path}: record {number}: {labels_key}",
            expected=f"0 to {number_of_classes - 1}",
        )
        for number, label in enumerate(labels, start=1)
        if type(label) is not int or not 0 <= label < number_of_classes
    ]
    refuse(mistakes)
    return data.reshape(-1, 3, side, side).transpose(0, 2, 3, 1), [] if mistakes else labels


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
