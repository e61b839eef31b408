"""What CIFAR-10 and CIFAR-100 have in common: pickled batches of planar pixels in one folder, and the hub's form."""

import math
from pathlib import Path
from typing import ClassVar

import numpy

from data_modules.labelled_pictures import LabelledPictures
from data_modules.reading.hub_files import hub_files, refuse_neither_form, refuse_two_forms
from data_modules.reading.restricted_pickle import BatchValue, read_batch
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.mistakes import refuse

HUB_IMAGE_COLUMNS = ("img", "image")


class CIFAR(LabelledPictures):
    """Base class of one split of either set; arguments as of ``LabelledPictures``.

    Class attributes:
        folder_name: The folder of the pickled files within ``root``.
    """

    folder_name: ClassVar[str]

    @property
    def folder(self) -> Path:
        """Where the pickled files are."""
        return self.root / self.folder_name

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


def names_in_batch(path: Path, key: str) -> list[str]:
    """Returns the class names in a pickled file.

    Raises:
        BadInputError: If the file cannot be read, or has none.
    """
    names = read_batch(path).get(key)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise BadInputError("there are no class names", where=f"{path}: {key}", expected="a list of texts")
    return list(map(str, names))


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
