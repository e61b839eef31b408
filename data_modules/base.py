"""What all data modules share: the processor, validation and the fingerprint."""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy
from lightning.pytorch import LightningDataModule

from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.collate import Collator
from lightning_m2pt.inputs.images import check_image
from lightning_m2pt.inputs.mistakes import collecting, mistakes_of, refuse
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import Question, Sample, Turn
from lightning_m2pt.inputs.stored_image import StoredImage
from lightning_m2pt.inputs.templates import template_named

MISSING_IMAGES_LISTED = 10

OnPicture: TypeAlias = Callable[[int, int], None]


def nobody_asks(done: int, total: int) -> None:
    """Stands where nobody wants to know how far a check is."""


class DataModule(LightningDataModule, ABC):
    """A data set on disk, prepared for one backbone.

    Args:
        root: Folder of the data set.
        template: Name of the conversation template.

    Raises:
        BadInputError: If there is no such template.
    """

    def __init__(self, root: FilePath, template: str) -> None:
        super().__init__()
        self.root = Path(root)
        self.template = template_named(template)
        self.connected_processor: Processor | None = None

    @property
    def processor(self) -> Processor:
        """The backbone's tokenizer and image rules.

        Raises:
            RuntimeError: If ``connect`` was not called.
        """
        if self.connected_processor is None:
            raise RuntimeError(f"{type(self).__name__}.connect(processor) must be called before its loaders are made")
        return self.connected_processor

    @property
    def collator(self) -> Collator:
        """Makes batches of encoded samples."""
        return Collator(self.processor.pad_token_id)

    def connect(self, processor: Processor) -> None:
        """Takes the backbone's processor; called once, before ``setup``."""
        self.connected_processor = processor

    @staticmethod
    @abstractmethod
    def write_fake(root: Path) -> None:
        """Writes small invented data in the set's official layout."""

    @abstractmethod
    def items(self) -> Sequence[Sample | Question]:
        """Returns everything the set holds, in a fixed order, read from disk once."""

    def check(self, decode: bool = False, on_picture: OnPicture = nobody_asks) -> None:
        """Validates annotations, pictures and the lengths of all texts, to the end whatever is found.

        Args:
            decode: Decode every picture, instead of those that do not end as their format does.
            on_picture: Told how many pictures were looked at, of how many.

        Raises:
            BadInputError: If something is wrong: with all mistakes. The module can be used as if it were new.
        """
        with collecting() as mistakes:
            try:
                self.examine(decode, on_picture)
            except BadInputError as error:
                mistakes += mistakes_of(error)
        if mistakes:
            self.forget()
        refuse(mistakes)

    def examine(self, decode: bool, on_picture: OnPicture) -> None:
        """Looks at everything ``check`` validates; see there."""
        items = self.items()
        present = image_bytes(items)
        pictures = [item for item in distinct_images(items) if image_key(item) in present]
        refuse(mistakes_in_pictures(pictures, decode, on_picture))

    @abstractmethod
    def forget(self) -> None:
        """Drops what was read: the next use reads again."""

    def fingerprint(self) -> str:
        """Returns the SHA-256 of what the set says: ids, texts and the size of every image; not where it lies.

        Raises:
            BadInputError: If images are missing.
        """
        return items_fingerprint(self.items())


def items_fingerprint(items: Sequence[Sample | Question]) -> str:
    """Returns the SHA-256 over ids, texts and the size of every image.

    Raises:
        BadInputError: If images are missing.
    """
    sizes = image_bytes(items)
    digest = hashlib.sha256()
    for item in items:
        texts = (
            [[turn.question, turn.answer] for turn in item.turns]
            if isinstance(item, Sample)
            else [item.subtask, item.text, item.target, *item.references, *([item.choices] if item.choices else [])]
        )
        line = json.dumps([item.id, item.image_id, texts, sizes[image_key(item)]])
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def image_key(item: Sample | Question) -> str:
    """Returns a name of an item's picture that is unique within its set: where it lies, or for arrays the item's id."""
    return item.id if isinstance(item.image, numpy.ndarray) else str(item.image)


def distinct_images(items: Sequence[Sample | Question]) -> list[Sample | Question]:
    """Returns the first item of every picture."""
    first: dict[str, Sample | Question] = {}
    for item in items:
        first.setdefault(image_key(item), item)
    return list(first.values())


def image_bytes(items: Sequence[Sample | Question]) -> dict[str, int | str]:
    """Returns for every picture its size in bytes, or the SHA-256 of an array.

    Raises:
        BadInputError: If files are missing: the first ten and their number.
    """
    sizes: dict[str, int | str] = {}
    missing: list[Sample | Question] = []
    for item in distinct_images(items):
        if isinstance(item.image, numpy.ndarray):
            sizes[image_key(item)] = hashlib.sha256(item.image.tobytes()).hexdigest()
            continue
        if isinstance(item.image, StoredImage):
            sizes[image_key(item)] = item.image.size
            continue
        try:
            sizes[image_key(item)] = os.stat(item.image).st_size
        except OSError:
            missing.append(item)
    if missing:
        names = ", ".join(str(item.image) for item in missing[:MISSING_IMAGES_LISTED])
        more = ", ..." if len(missing) > MISSING_IMAGES_LISTED else ""
        mistake = BadInputError(
            f"{len(missing)} of {len(sizes) + len(missing)} images are missing: {names}{more}",
            where=missing[0].source,
            expected="every image that the annotations name",
            hint="check the image folder",
        )
        refuse([mistake])
    return sizes


def mistakes_in_pictures(
    items: Sequence[Sample | Question], decode: bool, on_picture: OnPicture
) -> list[BadInputError]:
    """Returns what is wrong with pictures.

    Args:
        items: One item of every picture.
        decode: Decode every picture.
        on_picture: Told how many pictures were looked at, of how many.
    """
    mistakes = []
    for number, item in enumerate(items, start=1):
        try:
            check_image(item.image, item.source, decode)
        except BadInputError as error:
            error.__cause__ = error.__context__ = None
            mistakes.append(error.with_traceback(None))
        on_picture(number, len(items))
    return mistakes


def unique_ids(items: Sequence[Sample | Question], key: Callable[[Sample | Question], str]) -> None:
    """Refuses two items with the same key, naming both places.

    Raises:
        BadInputError: If there are any.
    """
    seen: dict[str, Sample | Question] = {}
    mistakes = []
    for item in items:
        other = seen.setdefault(key(item), item)
        if other is not item:
            mistake = f"{key(item)!r:.160} is there twice, first at {other.source}"
            mistakes.append(BadInputError(mistake, where=item.source, expected="unique records"))
    refuse(mistakes)


def as_sample(question: Question) -> Sample:
    """Returns an evaluation question as a sample without an answer."""
    return Sample(
        id=question.id,
        image=question.image,
        image_id=question.image_id,
        turns=(Turn(question.text),),
        tasks=(question.subtask,),
        source=question.source,
    )
