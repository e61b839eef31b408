"""MNIST writer (reader follows)."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy

IMAGES_MAGIC = 2051
LABELS_MAGIC = 2049
PREFIXES = {"test": "t10k", "train": "train"}
IMAGES_FILE = "{prefix}-images-idx3-ubyte"
LABELS_FILE = "{prefix}-labels-idx1-ubyte"


def write_mnist(root: Path, images: numpy.ndarray, labels: Sequence[int], split: str = "test") -> None:
    """Writes (N, S, S) uint8 pictures and N digits in MNIST's layout: two IDX files of the split."""
    root.mkdir(parents=True, exist_ok=True)
    prefix = PREFIXES[split]
    images_header = struct.pack(">4i", IMAGES_MAGIC, *images.shape)
    (root / IMAGES_FILE.format(prefix=prefix)).write_bytes(images_header + images.astype(numpy.uint8).tobytes())
    labels_header = struct.pack(">2i", LABELS_MAGIC, len(labels))
    (root / LABELS_FILE.format(prefix=prefix)).write_bytes(labels_header + bytes(labels))
