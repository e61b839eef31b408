"""What is known of every picture of a set before it is compared with those of others: its content and a sketch."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

import numpy
from PIL import Image

from data_modules.base import OnPicture, PictureOfItem, nobody_asks
from experiments.datasets.near_pictures import SKETCH_SIDE, sketch
from lightning_m2pt.errors import M2PTError
from lightning_m2pt.inputs.images import MAXIMUM_PIXELS, decoded, image_of_array, open_encoded, open_image, place_of

DECODED_SIDE = 8 * SKETCH_SIDE
"""A JPEG is decoded no larger than a sketch needs."""
THREADS = 4
PICTURES_AT_ONCE = 256


@dataclass(frozen=True)
class Looks:
    """The pictures of one set.

    Attributes:
        pictures: Those that could be read, in the set's order.
        contents: SHA-256 of the encoded bytes of each, or of an array's shape and values.
        sketches: (N, 64) float32; zeros where nothing can be compared, or where nobody asked for sketches.
        unread: How many could not be read.
    """

    pictures: tuple[PictureOfItem, ...]
    contents: tuple[bytes, ...]
    sketches: numpy.ndarray
    unread: int

    def flat(self) -> int:
        """Returns how many pictures are of nearly one colour, so that only their content is compared."""
        return int((~self.sketches.any(axis=1)).sum())


def looks_of(pictures: Sequence[PictureOfItem], with_sketches: bool, on_picture: OnPicture = nobody_asks) -> Looks:
    """Reads pictures and returns what is compared of them.

    Args:
        pictures: Every picture once.
        with_sketches: Whether they are decoded, for sketches.
        on_picture: Told how many pictures were looked at, of how many.
    """

    def look(picture: PictureOfItem) -> tuple[bytes, numpy.ndarray] | None:
        try:
            return look_at(picture, with_sketches)
        except M2PTError:  # said where the set itself is checked
            return None

    found: list[tuple[bytes, numpy.ndarray] | None] = []
    with ThreadPoolExecutor(THREADS) as threads:
        for start in range(0, len(pictures), PICTURES_AT_ONCE):
            found += threads.map(look, pictures[start : start + PICTURES_AT_ONCE])
            on_picture(len(found), len(pictures))
    read = [(picture, each) for picture, each in zip(pictures, found, strict=True) if each is not None]
    sketches = [drawn for _, (_, drawn) in read]
    return Looks(
        tuple(picture for picture, _ in read),
        tuple(content for _, (content, _) in read),
        numpy.stack(sketches) if sketches else numpy.empty((0, SKETCH_SIDE**2), numpy.float32),
        len(pictures) - len(read),
    )


def look_at(picture: PictureOfItem, with_sketch: bool) -> tuple[bytes, numpy.ndarray]:
    """Returns the digest of a picture's content, and its sketch or zeros.

    Raises:
        BadInputError: If it cannot be read.
        EnvironmentFailure: If it may not be read.
    """
    nothing = numpy.zeros(SKETCH_SIDE**2, numpy.float32)
    if isinstance(picture.image, numpy.ndarray):
        array = numpy.ascontiguousarray(picture.image)
        digest = hashlib.sha256(repr(array.shape).encode() + array.tobytes()).digest()
        return digest, sketch(image_of_array(array, picture.source, MAXIMUM_PIXELS)) if with_sketch else nothing
    place = place_of(picture.image, picture.source)
    with open_encoded(picture.image, place) as file:
        content = file.read()
    digest = hashlib.sha256(content).digest()
    if not with_sketch:
        return digest, nothing
    return digest, sketch(decoded(BytesIO(content), place, MAXIMUM_PIXELS, least_side=DECODED_SIDE))


def whole(picture: PictureOfItem) -> Image.Image | None:
    """Returns a picture decoded as the model would read it, or None if it cannot be read."""
    try:
        return open_image(picture.image, picture.source)
    except M2PTError:
        return None
