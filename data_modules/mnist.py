"""MNIST: handwritten digits, asked as an open question.

Source: the four IDX files of LeCun, Cortes and Burges (1998), CC BY-SA 3.0.

Layout, original: ``<root>/t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte`` (``train-...`` for training), as they
are or with ``.gz``, or in ``<root>/MNIST/raw`` as torchvision has them. Big-endian header: magic 2051, count, height,
width for pictures; magic 2049, count for labels. Sizes are taken from the header (28 x 28 in the real set). White
digits on black, shown to the model as RGB.

Layout, hub (``ylecun/mnist``): Parquet files of the splits ``train`` and ``test``, with the columns ``image`` (grey; or
``img``) and ``label``. The rows are taken to stand in the original order, which could not be looked at when this was
written: if they do, ids and data revision are those of the original form.

Counts: 60,000 training and 10,000 test pictures.

Split: ``test``. Contamination: Vision-Flan's MNIST-M tasks show MNIST's digits on photographs.

Metric: ``closed_set`` (accuracy); a digit may be answered as a word. Where candidates are compared by their likelihood
their form decides: a model that says "five" gives "5" hardly any probability, and is at chance among numerals. Look at
what it answers greedily, and set ``candidates``.
"""

import gzip
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy
from typing_extensions import override

from data_modules.benchmark import TemplateName
from data_modules.labelled_pictures import LabelledPicture, LabelledPictures
from data_modules.reading.files import fake_image
from data_modules.reading.hub_files import hub_files, labelled_pictures, refuse_neither_form, refuse_two_forms
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.mistakes import refuse
from lightning_m2pt.inputs.samples import Question

IMAGES_MAGIC = 2051
LABELS_MAGIC = 2049
MOST_VALUES = 2**30
"""Twenty times those of the training part."""
PREFIXES = {"test": "t10k", "train": "train"}
IMAGES_FILE = "{prefix}-images-idx3-ubyte"
LABELS_FILE = "{prefix}-labels-idx1-ubyte"
QUESTION = "Which digit is shown in this image?"
DIGITS = tuple("0123456789")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HUB_IMAGE_COLUMNS = ("image", "img")
HUB_LABEL_COLUMN = "label"
TORCHVISION_FOLDER = Path("MNIST") / "raw"


class MNIST(LabelledPictures):
    """One split of MNIST.

    Args:
        root: Folder of the IDX files.
        template: Name of the conversation template.
        batch_size: Questions answered at once.
        max_new_tokens: Limit on an answer's tokens.
        limit: How many pictures to take, spread evenly over the set; None takes all.
        split: ``test`` or ``train``.
        question: What is asked of every picture.
        candidates: What ``--answer likelihood_sum`` and the like compare: ``numerals``, or ``words`` ("five").
    """

    name = "mnist"

    def __init__(
        self,
        root: FilePath,
        template: TemplateName,
        batch_size: int = 32,
        max_new_tokens: int = 50,
        limit: int | None = None,
        split: Literal["test", "train"] = "test",
        question: str = QUESTION,
        candidates: Literal["numerals", "words"] = "numerals",
    ) -> None:
        super().__init__(root, template, batch_size, max_new_tokens, limit, split, question)
        self.compares_words = candidates == "words"

    @property
    def classes(self) -> list[str]:
        """The ten digits."""
        return list(DIGITS)

    @property
    @override
    def candidates(self) -> list[str]:
        return list(WORDS if self.compares_words else DIGITS)

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
        hub = hub_files(self.root, self.split)
        for file in self.idx_files():
            refuse_two_forms(self.root, hub, file)
        if not any(file.exists() for file in self.idx_files()):
            refuse_neither_form(self.root, hub, self.idx_files()[0], self.split)
        pictures = labelled_pictures(hub, HUB_IMAGE_COLUMNS, HUB_LABEL_COLUMN, len(DIGITS)) if hub else self.original()
        return self.asked(self.numbered(pictures), DIGITS)

    def idx_files(self) -> tuple[Path, Path]:
        """Returns the split's two files, of pictures and of labels: with ``.gz`` if only that is there."""
        names = (IMAGES_FILE, LABELS_FILE)
        nested = self.root / TORCHVISION_FOLDER
        folder = nested if nested.is_dir() else self.root
        images, labels = (with_ending(folder / name.format(prefix=PREFIXES[self.split])) for name in names)
        return images, labels

    def original(self) -> Iterator[LabelledPicture]:
        """Yields (place, pixels, digit) of the IDX files.

        Raises:
            BadInputError: If a file is missing, damaged, or pictures and labels do not agree.
        """
        images_path, labels_path = self.idx_files()
        images = read_idx(images_path, IMAGES_MAGIC, dimensions=3)
        labels = read_idx(labels_path, LABELS_MAGIC, dimensions=1)
        if len(images) != len(labels):
            raise BadInputError(
                f"there are {len(labels)} labels and {len(images)} pictures", where=str(labels_path), expected="as many"
            )
        wrong = [
            BadInputError(f"the label is {label}", where=f"{labels_path}: record {number}", expected="0 to 9")
            for number, label in enumerate(labels, start=1)
            if label >= len(DIGITS)
        ]
        refuse(wrong)
        for number, (image, label) in enumerate(zip(images, labels if not wrong else [], strict=False), start=1):
            yield f"{images_path}: record {number}", image, int(label)


def with_ending(path: Path) -> Path:
    """Returns the file, or the same with ``.gz`` if only that is there."""
    compressed = path.with_name(path.name + ".gz")
    return compressed if compressed.is_file() and not path.is_file() else path


def read_idx(path: Path, magic: int, dimensions: int) -> numpy.ndarray:
    """Returns an IDX file's values: uint8, as many dimensions as asked for.

    Raises:
        BadInputError: If the file is missing, damaged, cut off, too long, or of another kind.
    """
    if not path.is_file():
        raise BadInputError("the file does not exist", where=str(path), expected="the IDX file, or the same with .gz")
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
            if expected > MOST_VALUES:  # a small compressed file can hold more than the memory
                raise BadInputError(
                    f"the header says {expected} values", where=str(path), expected=f"at most {MOST_VALUES}"
                )
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
