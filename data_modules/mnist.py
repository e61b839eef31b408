"""MNIST: handwritten digits, asked as an open question.

Source: the four IDX files of LeCun, Cortes and Burges (1998), CC BY-SA 3.0.

Layout: ``<root>/t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte`` (``train-...`` for training), as they are or
with ``.gz``. Big-endian header: magic 2051, count, height, width for pictures; magic 2049, count for labels. Sizes
are taken from the header (28 x 28 in the real set). White digits on black, shown to the model as RGB.

Counts: 60,000 training and 10,000 test pictures.

Split: ``test``. Contamination: Vision-Flan's MNIST-M tasks show MNIST's digits on photographs.

Metric: ``closed_set`` (accuracy); a digit may be answered as a word.
"""

import gzip
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy

from data_modules.benchmark import BenchmarkDataModule, TemplateName
from data_modules.files import fake_image
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.types import Question

IMAGES_MAGIC = 2051
LABELS_MAGIC = 2049
PREFIXES = {"test": "t10k", "train": "train"}
IMAGES_FILE = "{prefix}-images-idx3-ubyte"
LABELS_FILE = "{prefix}-labels-idx1-ubyte"
QUESTION = "Which digit is shown in this image?"
DIGITS = tuple("0123456789")


class MNIST(BenchmarkDataModule):
    """One split of MNIST.

    Args:
        root: Folder of the IDX files.
        template: Name of the conversation template.
        batch_size: Questions answered at once.
        max_new_tokens: Limit on an answer's tokens.
        limit: How many pictures to take, spread evenly over the set; None takes all.
        split: ``test`` or ``train``.
        question: What is asked of every picture.
    """

    name = "mnist"
    rules = ("closed_set",)

    def __init__(
        self,
        root: str,
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
    def classes(self) -> list[str]:
        """The ten digits."""
        return list(DIGITS)

    @staticmethod
    def write_fake(root: Path) -> None:
        """Writes six invented pictures, smaller than the real ones."""
        images = numpy.stack([fake_image(number, side=20, channels=1) for number in range(6)])
        write_mnist(root, images, [7, 0, 3, 9, 1, 7])

    def read(self) -> list[Question]:
        """Returns one question a picture.

        Raises:
            BadInputError: If a file is missing, damaged, or pictures and labels do not agree.
        """
        prefix = PREFIXES[self.split]
        images_path = existing(self.root / IMAGES_FILE.format(prefix=prefix))
        labels_path = existing(self.root / LABELS_FILE.format(prefix=prefix))
        images = read_idx(images_path, IMAGES_MAGIC, dimensions=3)
        labels = read_idx(labels_path, LABELS_MAGIC, dimensions=1)
        if len(images) != len(labels):
            raise BadInputError(
                f"there are {len(labels)} labels and {len(images)} pictures", where=str(labels_path), expected="as many"
            )
        for number, label in enumerate(labels, start=1):
            if label >= len(DIGITS):
                raise BadInputError(f"the label is {label}", where=f"{labels_path}: record {number}", expected="0 to 9")
        return [
            Question(
                id=f"{self.split}/{number}",
                subtask="",
                text=self.question,
                target=DIGITS[label],
                image=image,
                image_id=f"{self.split}/{number}",
                source=f"{images_path}: record {number}",
            )
            for number, (image, label) in enumerate(zip(images, labels, strict=True), start=1)
        ]


def existing(path: Path) -> Path:
    """Returns the file, or the same with ``.gz``.

    Raises:
        BadInputError: If there is neither.
    """
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file():
            return candidate
    raise BadInputError("the file does not exist", where=str(path), expected="the IDX file, or the same with .gz")


def read_idx(path: Path, magic: int, dimensions: int) -> numpy.ndarray:
    """Returns an IDX file's values: uint8, as many dimensions as asked for.

    Raises:
        BadInputError: If the file is damaged, cut off, too long, or of another kind.
    """
    length = 4 * (1 + dimensions)
    try:
        with cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(length)
            if len(header) < length:
                raise BadInputError("the file is cut off in its header", where=str(path), expected="a complete file")
            found, *shape = struct.unpack(f">{1 + dimensions}I", header)
            if found != magic:
                raise BadInputError(f"the magic number is {found}", where=str(path), expected=str(magic))
            expected = 1
            for side in shape:
                expected *= side
            values = file.read(expected + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error, OverflowError, MemoryError) as error:
        raise BadInputError(f"the file is damaged: {error}", where=str(path), hint="download it again") from error
    if len(values) != expected or expected == 0:
        raise BadInputError(
            "the file is cut off or too long", where=str(path), expected=f"{expected} values after the header"
        )
    return numpy.frombuffer(values, numpy.uint8).reshape(shape)


def write_mnist(root: Path, images: numpy.ndarray, labels: Sequence[int], split: str = "test") -> None:
    """Writes (N, S, S) uint8 pictures and N digits in MNIST's layout: two IDX files of the split."""
    root.mkdir(parents=True, exist_ok=True)
    prefix = PREFIXES[split]
    images_header = struct.pack(">4i", IMAGES_MAGIC, *images.shape)
    (root / IMAGES_FILE.format(prefix=prefix)).write_bytes(images_header + images.astype(numpy.uint8).tobytes())
    labels_header = struct.pack(">2i", LABELS_MAGIC, len(labels))
    (root / LABELS_FILE.format(prefix=prefix)).write_bytes(labels_header + bytes(labels))
