"""CIFAR-10 writer (reader follows)."""

from collections.abc import Sequence
from pathlib import Path

import numpy

from data_modules.restricted_pickle import python2_pickle

FOLDER = "cifar-10-batches-py"
BATCH_FILES = {"test": ("test_batch",), "train": tuple(f"data_batch_{number}" for number in range(1, 6))}
META_FILE = "batches.meta"


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
        batch = {
            "batch_label": f"{split} batch",
            "labels": [int(labels[position]) for position in positions],
            "data": rows[positions],
            "filenames": [f"{split}_{position:05d}.png" for position in positions],
        }
        (folder / name).write_bytes(python2_pickle(batch))
    meta = {"num_cases_per_batch": len(images), "label_names": list(class_names), "num_vis": rows.shape[1]}
    (folder / META_FILE).write_bytes(python2_pickle(meta))
