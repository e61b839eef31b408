"""Which pictures of one set are in another, and which stand twice in one: by name, by content, by pixels, nearly.

Names are those of the files, without folder and ending and without what COCO put in front of its numbers. They prove
nothing: ``00001.png`` is in many sets. Of equal content are two pictures whose encoded bytes are the same, or two
arrays; of equal pixels those that are the same once decoded; what is near is said in ``near_pictures``.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy
from PIL import Image

from data_modules.base import PictureOfItem
from experiments.datasets.near_pictures import alike, are_near
from experiments.datasets.picture_looks import Looks, whole
from lightning_m2pt.inputs.samples import Question, Sample

CONTENT, PIXELS, NEAR = "content", "pixels", "near"
COCO = re.compile(r"COCO_(train|val|test)\d{4}_(?=\d{12}$)", re.IGNORECASE)
LEAST_LETTERS = 5
KEPT_DECODED = 64

Opens = Callable[[PictureOfItem], Image.Image | None]


@dataclass(frozen=True)
class SamePicture:
    """A picture that was found a second time.

    Attributes:
        ours: The picture.
        theirs: The one that it is.
        way: ``content``, ``pixels`` or ``near``.
    """

    ours: PictureOfItem
    theirs: PictureOfItem
    way: str


def pictures_in(ours: Looks, theirs: Looks) -> list[SamePicture]:
    """Returns our pictures that are among theirs, each once."""
    places = {content: position for position, content in reversed(list(enumerate(theirs.contents)))}
    found = {
        position: SamePicture(ours.pictures[position], theirs.pictures[places[content]], CONTENT)
        for position, content in enumerate(ours.contents)
        if content in places
    }
    left = [position for position in range(len(ours.contents)) if position not in found]
    opens = opener()
    for row, column in alike(ours.sketches[left], theirs.sketches):
        position = left[row]
        if position not in found:
            same = compared(ours.pictures[position], theirs.pictures[column], opens)
            if same is not None:
                found[position] = same
    return [found[position] for position in sorted(found)]


def pictures_twice(looks: Looks) -> list[SamePicture]:
    """Returns the pictures of a set that stand in it before under another name, each once."""
    first: dict[bytes, int] = {}
    found: dict[int, SamePicture] = {}
    for position, content in enumerate(looks.contents):
        before = first.setdefault(content, position)
        if before != position:
            found[position] = SamePicture(looks.pictures[position], looks.pictures[before], CONTENT)
    left = [position for position in range(len(looks.contents)) if position not in found]
    sketches = looks.sketches[left]
    opens = opener()
    for row, column in alike(sketches, sketches):
        position = left[row]
        if position not in found:
            same = compared(looks.pictures[position], looks.pictures[left[column]], opens)
            if same is not None:
                found[position] = same
    return [found[position] for position in sorted(found)]


def opener() -> Opens:
    """Returns what decodes a picture, and keeps the last few: one picture is compared with several in turn."""
    kept: dict[str, Image.Image | None] = {}

    def opens(picture: PictureOfItem) -> Image.Image | None:
        name = f"{picture.source}\n{picture.key}"
        if name not in kept:
            if len(kept) >= KEPT_DECODED:
                kept.pop(next(iter(kept)))
            kept[name] = whole(picture)
        return kept[name]

    return opens


def compared(ours: PictureOfItem, theirs: PictureOfItem, opens: Opens) -> SamePicture | None:
    """Returns in which way two pictures are the same, if they are."""
    one, other = opens(ours), opens(theirs)
    if one is None or other is None:
        return None
    if one.size == other.size and numpy.array_equal(numpy.asarray(one), numpy.asarray(other)):
        return SamePicture(ours, theirs, PIXELS)
    return SamePicture(ours, theirs, NEAR) if are_near(one, other) else None


def names_in(ours: Iterable[Sample | Question], theirs: Iterable[Sample | Question]) -> list[str]:
    """Returns the names of our pictures that their pictures have too, in order, those of few letters left out."""
    known = {name for item in theirs if len(name := plain_name(item.image_id)) >= LEAST_LETTERS}
    # A sample of several pictures has a line for the name of each.
    return sorted({name for item in ours for name in item.image_id.split("\n") if plain_name(name) in known})


def plain_name(name: str) -> str:
    """Returns a picture's name without folder, ending, and what COCO puts in front of its numbers."""
    return COCO.sub("", PurePosixPath(name).stem).lower()


def counts(found: Sequence[SamePicture]) -> dict[str, int]:
    """Returns how many were found in which way, those of none left out."""
    return {way: number for way in (CONTENT, PIXELS, NEAR) if (number := sum(each.way == way for each in found))}
