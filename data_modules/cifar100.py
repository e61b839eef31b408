"""CIFAR-100: small photographs of a hundred classes in twenty groups, asked as an open question.

Source: https://www.cs.toronto.edu/~kriz/cifar.html, ``cifar-100-python.tar.gz`` (Krizhevsky, 2009). No licence stated.

Layout, original: ``<root>/cifar-100-python/`` with ``train``, ``test`` and ``meta``: pickled dictionaries of Python 2,
read by a reader that runs nothing. A split has ``data`` ((N, 3 S S) uint8 as in CIFAR-10), ``fine_labels``,
``coarse_labels``, ``filenames`` and ``batch_label``; ``meta`` has ``fine_label_names`` and ``coarse_label_names``, with
underscores (``aquarium_fish``) that answers need not have. Copies of the list of names are about that say ``cra`` in
place of ``crab``: repaired, since every right answer of that class would be lost.

Layout, hub (``uoft-cs/cifar100``): Parquet files of the splits ``train`` and ``test``, with the columns ``img`` (or
``image``), ``fine_label`` and ``coarse_label``. The rows are taken to stand in the original order, which could not be
looked at when this was written: if they do, ids and data revision are those of the original form.

Counts: 50,000 training and 10,000 test pictures, 100 test pictures of every fine class.

Split: ``test``. Contamination: none known; CIFAR-10 has other classes.

Metric: ``closed_set`` (accuracy). One fine class is ``can``: an answer with the verb beside another class names two, as
does "an orange fox". Irregular plurals (mice, wolves, women) name none.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy

from data_modules.benchmark import TemplateName
from data_modules.cifar import CIFAR, HUB_IMAGE_COLUMNS, names_in_batch, pictures_and_labels
from data_modules.cifar100_names import COARSE_NAMES, FINE_NAMES
from data_modules.labelled_pictures import MAIN_OBJECT, LabelledPicture
from data_modules.reading.files import fake_image
from data_modules.reading.hub_files import (
    class_names,
    labelled_pictures,
)
from data_modules.reading.restricted_pickle import WritableValue, python2_pickle, read_batch
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.inputs.samples import Question

FOLDER = "cifar-100-python"
META_FILE = "meta"
MISSPELT_NAMES = {"cra": "crab"}


class CIFAR100(CIFAR):
    """One split of CIFAR-100.

    Args:
        root: Folder that holds ``cifar-100-python``.
        template: Name of the conversation template.
        batch_size: Questions answered at once.
        max_new_tokens: Limit on an answer's tokens.
        limit: How many pictures to take, spread evenly over the set; None takes all.
        split: ``test`` or ``train``.
        question: What is asked of every picture.
        labels: Whether the hundred ``fine`` classes are the answers or the twenty ``coarse`` ones.
    """

    name = "cifar100"
    folder_name = FOLDER

    def __init__(
        self,
        root: FilePath,
        template: TemplateName,
        batch_size: int = 32,
        max_new_tokens: int = 50,
        limit: int | None = None,
        split: Literal["test", "train"] = "test",
        question: str = MAIN_OBJECT,
        labels: Literal["fine", "coarse"] = "fine",
    ) -> None:
        super().__init__(root, template, batch_size, max_new_tokens, limit, split, question)
        self.labels = labels

    @property
    def classes(self) -> list[str]:
        """The class names in ``meta`` or in the hub's files, fine or coarse, with a known misspelling repaired.

        Raises:
            BadInputError: If they cannot be read.
        """
        if self.hub:
            known = FINE_NAMES if self.labels == "fine" else COARSE_NAMES
            found = class_names(self.hub[0], f"{self.labels}_label") or list(known)
        else:
            found = names_in_batch(self.folder / META_FILE, f"{self.labels}_label_names")
        return [MISSPELT_NAMES.get(name, name) for name in found]

    @staticmethod
    def write_fake(root: Path) -> None:
        """Writes six invented pictures of three fine classes in two groups, smaller than the real ones."""
        images = numpy.stack([fake_image(number, side=24) for number in range(6)])
        fine_names, coarse_names = ["crab", "pickup_truck", "tank"], ["non-insect_invertebrates", "vehicles_1"]
        write_cifar100(root, images, [0, 1, 2, 0, 1, 2], [0, 1, 1, 0, 1, 1], fine_names, coarse_names)

    def read(self) -> list[Question]:
        """Returns one question a picture.

        Raises:
            BadInputError: If a file is missing, damaged, or its pictures and labels do not agree.
        """
        classes = self.classes
        pictures = (
            self.original_pictures(len(classes))
            if not self.hub
            else labelled_pictures(self.hub, HUB_IMAGE_COLUMNS, f"{self.labels}_label", len(classes))
        )
        return self.asked(self.numbered(pictures), classes)

    def original_pictures(self, number_of_classes: int) -> Iterator[LabelledPicture]:
        """Yields (place, pixels, class number) of the split's pickled file.

        Raises:
            BadInputError: If the file is missing, damaged, or its pictures and labels do not agree.
        """
        path = self.folder / self.split
        images, labels = pictures_and_labels(read_batch(path), path, number_of_classes, f"{self.labels}_labels")
        for number, (image, label) in enumerate(zip(images, labels, strict=False), start=1):
            yield f"{path}: record {number}", image, label


def write_cifar100(
    root: Path,
    images: numpy.ndarray,
    fine_labels: Sequence[int],
    coarse_labels: Sequence[int],
    fine_names: Sequence[str],
    coarse_names: Sequence[str],
    split: str = "test",
) -> None:
    """Writes pictures in CIFAR-100's layout: planar pixels in pickles that Python 2 reads too.

    Args:
        root: Folder that gets ``cifar-100-python``.
        images: (N, S, S, 3) uint8.
        fine_labels: N numbers of fine classes.
        coarse_labels: N numbers of coarse classes.
        fine_names: Names of the fine classes.
        coarse_names: Names of the coarse classes.
        split: ``test`` or ``train``.
    """
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    batch: dict[str, WritableValue] = {
        "filenames": [f"{split}_{position:05d}.png" for position in range(len(images))],
        "batch_label": f"{split} batch",
        "fine_labels": [int(label) for label in fine_labels],
        "coarse_labels": [int(label) for label in coarse_labels],
        "data": images.transpose(0, 3, 1, 2).reshape(len(images), -1),
    }
    (folder / split).write_bytes(python2_pickle(batch))
    meta: dict[str, WritableValue] = {"fine_label_names": list(fine_names), "coarse_label_names": list(coarse_names)}
    (folder / META_FILE).write_bytes(python2_pickle(meta))
