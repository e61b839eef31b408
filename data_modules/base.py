"""What all data modules share: the processor, validation and the fingerprint."""

import hashlib
import json
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy
from lightning.pytorch import LightningDataModule

from data_modules.index.looked_at import looked_at_once
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.collate import Collator
from lightning_m2pt.inputs.encoded_picture import EncodedPicture
from lightning_m2pt.inputs.images import check_image
from lightning_m2pt.inputs.mistakes import collecting, mistakes_of, refuse
from lightning_m2pt.inputs.named_templates import PUBLISHED, template_named
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import ImageSource, Question, Sample, Turn

MISSING_IMAGES_LISTED = 10

OnPicture: TypeAlias = Callable[[int, int], None]


def nobody_asks(done: int, total: int) -> None:
    """Stands where nobody wants to know how far a check is."""


class DataModule(LightningDataModule, ABC):
    """A data set on disk, prepared for one backbone.

    Args:
        root: Folder of the data set.
        template: Name of the conversation template.

    Attributes:
        checks_folder: Where it is noted that all pictures are right, so that of several processes one looks at them;
            None has each of them look.

    Raises:
        BadInputError: If there is no such template.
    """

    def __init__(self, root: FilePath, template: str) -> None:
        super().__init__()
        self.root = Path(root)
        self.template = template_named(template)
        self.connected_processor: Processor | None = None
        self.checks_folder: Path | None = None
        self._backbone: weakref.ref[Backbone] | None = None

    @property
    def processor(self) -> Processor:
        """The backbone's tokenizer and image rules.

        Raises:
            RuntimeError: If there are none: a Trainer's ``fit``, ``validate``, ``predict`` and ``test`` take those of
                the module they are given, and ``connect`` takes any.
        """
        if self.connected_processor is None:
            raise RuntimeError(
                f"{type(self).__name__}.connect(module.backbone.processor()) must be called before its loaders are "
                "made, or a Trainer be given a TuningModule"
            )
        return self.connected_processor

    @property
    def template_label(self) -> str:
        """The template's name, with the beginning of its digest where the name does not say everything."""
        return self.template.name if self.template in PUBLISHED else self.processor.bound(self.template).label

    @property
    def collator(self) -> Collator:
        """Makes batches of encoded samples."""
        return Collator(self.processor.pad_token_id)

    def connect(self, processor: Processor, backbone: Backbone | None = None) -> None:
        """Takes a backbone's processor; what was prepared for another backbone is dropped.

        Args:
            processor: The tokenizer and image rules.
            backbone: Whose they are; None holds on to them whatever model a Trainer is given.
        """
        before = None if self._backbone is None else self._backbone()
        is_same = before is backbone if backbone is not None else processor is self.connected_processor
        if self.connected_processor is not None and not is_same:
            self.forget()
        self.connected_processor = processor
        self._backbone = None if backbone is None else weakref.ref(backbone)

    def connect_to_module(self) -> None:
        """Takes the processor of the module that the Trainer was given; every ``setup`` begins with it."""
        module = self.trainer.lightning_module if self.trainer is not None else None
        backbone = getattr(module, "backbone", None)
        is_held = self.connected_processor is not None and self._backbone is None
        is_known = self._backbone is not None and self._backbone() is backbone
        if isinstance(backbone, Backbone) and not is_held and not is_known:
            self.connect(backbone.processor(), backbone)

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
        pictures = [picture for picture in distinct_pictures(items) if picture.key in present]
        look = partial(look_at, pictures, self.connected_processor, decode, on_picture)
        if decode or self.checks_folder is None:
            look()
        else:
            looked_at_once(self.checks_folder, [each.image for each in pictures], self.connected_processor, look)

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
        texts = [[turn.question, turn.answer] for turn in item.turns] if isinstance(item, Sample) else texts_of(item)
        of_pictures = [sizes[picture.key] for picture in pictures_of(item)]
        said = [item.id, item.image_id, texts, of_pictures[0] if len(of_pictures) == 1 else of_pictures]
        line = json.dumps([*said, *rarely_said(item)])
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def rarely_said(item: Sample | Question) -> list[object]:
    """Returns what few samples say besides ids, texts and pictures: a system text, and which turn shows what."""
    return (
        [item.system, item.shown_in_turns] if isinstance(item, Sample) and (item.system or item.shown_in_turns) else []
    )


def texts_of(question: Question) -> list[object]:
    """Returns what a question says; what only some kinds of questions have stands there only where it is."""
    texts: list[object] = [question.subtask, question.text, question.target, *question.references]
    texts += [question.choices] if question.choices else []
    return [*texts, {"tolerance": question.tolerance}] if question.tolerance else texts


@dataclass(frozen=True)
class PictureOfItem:
    """A picture and the record that names it.

    Attributes:
        key: A name that is unique within its set: where it lies, or for arrays the item's id and its place there.
        image: Where it is.
        source: The record.
    """

    key: str
    image: ImageSource
    source: str


def pictures_of(item: Sample | Question) -> list[PictureOfItem]:
    """Returns an item's own pictures, none or several; those of examples belong to other items."""
    images = [item.image] if item.image is not None else []
    if isinstance(item, Sample):
        images += item.further_images
    return [
        PictureOfItem(
            (item.id + f" picture {place + 1}" * (place > 0)) if isinstance(image, numpy.ndarray) else str(image),
            image,
            item.source,
        )
        for place, image in enumerate(images)
    ]


def image_key(item: Sample | Question) -> str:
    """Returns a name of what an item shows that is unique within its set; of several pictures of all of them."""
    if isinstance(item, Sample) and len(item.images) != 1:
        return "\n".join(picture.key for picture in pictures_of(item))
    return item.id if isinstance(item.image, numpy.ndarray) else str(item.image)


def distinct_pictures(items: Sequence[Sample | Question]) -> list[PictureOfItem]:
    """Returns every picture once, named by the first record about it."""
    first: dict[str, PictureOfItem] = {}
    for item in items:
        for picture in pictures_of(item):
            first.setdefault(picture.key, picture)
    return list(first.values())


def image_bytes(items: Sequence[Sample | Question]) -> dict[str, int | str]:
    """Returns for every picture its size in bytes, or the SHA-256 of an array.

    Raises:
        BadInputError: If files are missing: the first ten and their number.
    """
    sizes: dict[str, int | str] = {}
    missing: list[PictureOfItem] = []
    for picture in distinct_pictures(items):
        image = picture.image
        if isinstance(image, numpy.ndarray):
            sizes[picture.key] = hashlib.sha256(image.tobytes()).hexdigest()
            continue
        if isinstance(image, EncodedPicture):
            sizes[picture.key] = image.size
            continue
        try:
            sizes[picture.key] = os.stat(image).st_size
        except OSError:
            missing.append(picture)
    refuse_missing(missing, len(sizes) + len(missing))
    return sizes


def refuse_missing(missing: Sequence[PictureOfItem], together: int) -> None:
    """Refuses a set whose pictures are not all there.

    Args:
        missing: Pictures that are not.
        together: How many there should be.

    Raises:
        BadInputError: If there are any: the first ten and their number.
    """
    if not missing:
        return
    named = [str(missing[number].image) for number in range(min(len(missing), MISSING_IMAGES_LISTED))]
    more = ", ..." if len(missing) > MISSING_IMAGES_LISTED else ""
    mistake = BadInputError(
        f"{len(missing)} of {together} images are missing: {', '.join(named)}{more}",
        where=missing[0].source,
        expected="every image that the annotations name",
        hint="check the image folder",
    )
    refuse([mistake])


def look_at(
    pictures: Sequence[PictureOfItem], processor: Processor | None, decode: bool, on_picture: OnPicture
) -> None:
    """Looks at pictures; the arguments are those of ``mistakes_in_pictures``.

    Raises:
        BadInputError: If something is wrong with some: all of it.
    """
    refuse(mistakes_in_pictures(pictures, processor, decode, on_picture))


def mistakes_in_pictures(
    pictures: Sequence[PictureOfItem], processor: Processor | None, decode: bool, on_picture: OnPicture
) -> list[BadInputError]:
    """Returns what is wrong with pictures.

    Args:
        pictures: Every picture once.
        processor: Knows which sizes the model takes; None where no model is known.
        decode: Decode every picture.
        on_picture: Told how many pictures were looked at, of how many.
    """
    mistakes = []
    for number, picture in enumerate(pictures, start=1):
        try:
            check_image(picture.image, picture.source, decode)
            if processor is not None:
                processor.check_picture(picture.image, picture.source)
        except BadInputError as error:
            error.__cause__ = error.__context__ = None
            mistakes.append(error.with_traceback(None))
        on_picture(number, len(pictures))
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
