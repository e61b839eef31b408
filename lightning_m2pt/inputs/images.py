"""Opening pictures that nobody vouches for.

Conversion rules, the same for every data set:

- EXIF orientation is applied; of an animation the first frame counts.
- 16-bit grey becomes 8-bit by ``(value + 128) // 257``, so white stays white (a plain cast would clip it).
- Palette, CMYK and grey become RGB as Pillow converts them. Transparency is dropped, not blended: what the
  published preprocessing does.
- 32-bit integer and float pictures are refused: their range is not stated in the file.
"""

import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from lightning_m2pt.errors import BadInputError, EnvironmentFailure, M2PTError
from lightning_m2pt.inputs.encoded_picture import EncodedPicture
from lightning_m2pt.inputs.samples import ImageSource
from lightning_m2pt.system.path_lengths import LONGEST_PART

MAXIMUM_PIXELS = 50_000_000
"""Pictures above this are refused from their header, before anything is decoded."""

# Pillow's other readers start outside programs (EPS) or are rare enough not to be worth their attack surface.
READABLE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9", "GIF": b"\x00;"}
"""What the last bytes of a whole file are; some writers add zeros."""
LONGEST_END = 64
HINT_BYTES = 64
SIDEWAYS = frozenset({5, 6, 7, 8})
"""EXIF orientations of pictures whose width is stored as their height."""
LONGEST_REASON = 160
LONGEST_NAME = 1024
ADDRESS = re.compile(r"[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]*:/|(file|data):")


def open_image(source: ImageSource, where: str = "", maximum_pixels: int = MAXIMUM_PIXELS) -> Image.Image:
    """Returns a picture as 8-bit RGB, following the module's conversion rules.

    Args:
        source: A file, a place in another file, or an array (H, W) or (H, W, 3) of uint8.
        where: ``FILE:LINE`` or record the picture belongs to, for the error.
        maximum_pixels: Limit on width times height.

    Raises:
        BadInputError: If there is no readable picture of an allowed kind and size.
        EnvironmentFailure: If the file may not be read.
    """
    if isinstance(source, numpy.ndarray):
        return image_of_array(source, where, maximum_pixels)
    place = place_of(source, where)
    with open_encoded(source, place) as file:
        return decoded(file, place, maximum_pixels)


def pixels_of(source: Path | EncodedPicture, where: str = "", maximum_pixels: int = MAXIMUM_PIXELS) -> numpy.ndarray:
    """Returns a picture's pixels: (H, W) uint8 if it is 8-bit grey, and otherwise (H, W, 3).

    Args:
        source: A file, or a place in another file.
        where: ``FILE:LINE`` or record the picture belongs to, for the error.
        maximum_pixels: Limit on width times height.

    Raises:
        BadInputError: If there is no readable picture of an allowed kind and size.
        EnvironmentFailure: If the file may not be read.
    """
    place = place_of(source, where)
    with open_encoded(source, place) as file:
        return numpy.asarray(decoded(file, place, maximum_pixels, keep_grey=True))


def decoded(
    file: BinaryIO, place: str, maximum_pixels: int, *, keep_grey: bool = False, least_side: int | None = None
) -> Image.Image:
    """Returns an encoded picture as 8-bit RGB, or as it is if it is 8-bit grey and ``keep_grey`` is set.

    Args:
        file: The encoded picture.
        place: Where it is, for the error.
        maximum_pixels: Limit on width times height.
        keep_grey: Whether 8-bit grey stays grey.
        least_side: Where nobody needs more: a JPEG is decoded at an eighth, a quarter or half of its size, with no
            side below this. Not what the model reads.

    Raises:
        BadInputError: If it is no readable picture of an allowed kind and size.
    """
    image = open_header(file, place, maximum_pixels)
    with damage_named(place):
        if least_side is not None:
            image.draft(None, (least_side, least_side))
        return upright(image, place, keep_grey)


def upright_rgb(image: Image.Image, place: str, maximum_pixels: int = MAXIMUM_PIXELS) -> Image.Image:
    """Returns a picture that somebody has opened with Pillow as ``open_image`` would return its file.

    Args:
        image: It stays as it is, but for being decoded.
        place: Where it is, for the error.
        maximum_pixels: Limit on width times height.

    Raises:
        BadInputError: If it is too large, of a kind that is not allowed, or cannot be decoded.
    """
    if image.width * image.height > maximum_pixels:
        raise too_large(place, maximum_pixels)
    with damage_named(place):
        return upright(image, place)


def upright(image: Image.Image, place: str, keep_grey: bool = False) -> Image.Image:
    """Returns a copy of a picture, decoded and turned as its EXIF data say, as 8-bit RGB or 8-bit grey.

    Raises:
        BadInputError: If it has 32 bits a pixel and channel.
    """
    image.load()
    turned = ImageOps.exif_transpose(image)
    return turned if keep_grey and turned.mode == "L" else as_rgb(turned, place)


@contextmanager
def damage_named(place: str) -> Iterator[None]:
    """Refuses a picture that cannot be decoded while the block runs.

    Raises:
        BadInputError: Naming where it is.
    """
    try:
        yield
    except M2PTError:
        raise
    except Exception as error:  # a damaged file can raise anything: struct.error, zlib.error, SyntaxError, IndexError
        raise BadInputError(
            f"the image is damaged or cut off: {pillow_message(error)}",
            where=place,
            hint="copy or download the file again",
        ) from error


def image_size(source: ImageSource, where: str = "", maximum_pixels: int = MAXIMUM_PIXELS) -> tuple[int, int]:
    """Returns (width, height) as stored in the header, without decoding the picture.

    Args:
        source: A file, a place in another file, or an array (H, W) or (H, W, 3) of uint8.
        where: ``FILE:LINE`` or record the picture belongs to, for the error.
        maximum_pixels: Limit on width times height.

    Raises:
        BadInputError: If the header is not that of an allowed picture.
        EnvironmentFailure: If the file may not be read.
    """
    if isinstance(source, numpy.ndarray):
        return image_of_array(source, where, maximum_pixels).size
    place = place_of(source, where)
    with open_encoded(source, place) as file:
        return open_header(file, place, maximum_pixels).size


def upright_size(source: ImageSource, where: str = "", maximum_pixels: int = MAXIMUM_PIXELS) -> tuple[int, int]:
    """Returns (width, height) of a picture as ``open_image`` would return it, without decoding it where that is so.

    Args:
        source: A file, a place in another file, or an array (H, W) or (H, W, 3) of uint8.
        where: ``FILE:LINE`` or record the picture belongs to, for the error.
        maximum_pixels: Limit on width times height.

    Raises:
        BadInputError: If the header is not that of an allowed picture.
        EnvironmentFailure: If the file may not be read.
    """
    if isinstance(source, numpy.ndarray):
        return image_of_array(source, where, maximum_pixels).size
    place = place_of(source, where)
    with open_encoded(source, place) as file:
        image = open_header(file, place, maximum_pixels)
        try:
            # Pillow gives the upright size of a TIFF itself.
            turned = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation, 1) in SIDEWAYS
        except Exception as error:  # as in decoded; a PNG may have its EXIF data behind its pixels
            raise BadInputError(f"the image is damaged or cut off: {pillow_message(error)}", where=place) from error
        return (image.height, image.width) if turned else image.size


def check_image(source: ImageSource, where: str = "", decode: bool = False) -> None:
    """Looks at a picture's header and at its end; a picture that does not end as its format does is decoded.

    Args:
        source: A file, a place in another file, or an array (H, W) or (H, W, 3) of uint8.
        where: ``FILE:LINE`` or record the picture belongs to, for the error.
        decode: Decode it whatever its end is.

    Raises:
        BadInputError: If there is no readable picture of an allowed kind and size.
        EnvironmentFailure: If the file may not be read.
    """
    if isinstance(source, numpy.ndarray):
        image_of_array(source, where, MAXIMUM_PIXELS)
        return
    place = place_of(source, where)
    with open_encoded(source, place) as file:
        format_name = open_header(file, place, MAXIMUM_PIXELS).format or ""
        if decode or not has_end(file, format_name):
            file.seek(0)
            decoded(file, place, MAXIMUM_PIXELS)


def has_end(file: BinaryIO, format_name: str) -> bool:
    """Tells whether an encoded picture ends with what its format ends with; False where that says nothing."""
    end = ENDS.get(format_name)
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - LONGEST_END))
    return end is not None and file.read().rstrip(b"\0").endswith(end)


def place_of(source: Path | EncodedPicture, where: str) -> str:
    """Returns words for where a picture is: the record it belongs to, and the file or column."""
    if where and isinstance(source, EncodedPicture):
        return f"{where}: {source.label}"
    return f"{where}: {source}" if where else str(source)


def open_encoded(source: Path | EncodedPicture, place: str) -> BinaryIO:
    """Opens an encoded picture for reading.

    Raises:
        BadInputError: If it is missing, empty, or no regular file.
        EnvironmentFailure: If the file may not be read.
    """
    return BytesIO(source.read()) if isinstance(source, EncodedPicture) else open_regular_file(source, place)


def image_of_array(array: numpy.ndarray, where: str, maximum_pixels: int) -> Image.Image:
    """Returns an array as an RGB picture.

    Raises:
        BadInputError: If it is not (H, W) or (H, W, 3) of uint8 with at least one pixel.
    """
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != numpy.uint8 or not is_picture or not 0 < array.shape[0] * array.shape[1] <= maximum_pixels:
        raise BadInputError(
            f"an array of shape {array.shape} and type {array.dtype} is no picture",
            where=where,
            expected=f"(height, width) or (height, width, 3) of uint8, at most {maximum_pixels} pixels",
        )
    return Image.fromarray(array).convert("RGB")


def open_regular_file(path: Path, place: str) -> BinaryIO:
    """Opens a file for reading, and nothing that is no file (reading a FIFO would wait for ever).

    Raises:
        BadInputError: If it is missing, empty, or no regular file.
        EnvironmentFailure: If it may not be read.
    """
    if "\0" in str(path):
        raise BadInputError("no file has a name with NUL in it", where=place, expected="an image file")
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise BadInputError(f"this is {kind}", where=place, expected="an image file")
        if status.st_size == 0:
            raise BadInputError("the image file is empty", where=place, hint="copy or download the file again")
        return path.open("rb")
    except FileNotFoundError as error:
        raise BadInputError("the image is missing", where=place, hint="check the image folder") from error
    except PermissionError as error:
        raise EnvironmentFailure("no permission to read the image", where=place) from error
    except OSError as error:
        raise BadInputError(f"the image cannot be opened: {error.strerror}", where=place) from error


def open_header(file: BinaryIO, place: str, maximum_pixels: int) -> Image.Image:
    """Returns the picture with its header read and its pixels not decoded yet.

    Raises:
        BadInputError: If it is no picture of a readable format, or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            image = Image.open(file, formats=READABLE_FORMATS)
    except Image.DecompressionBombError as error:
        raise too_large(place, maximum_pixels) from error
    except UnidentifiedImageError as error:
        file.seek(0)
        raise BadInputError(
            f"this is not an image but {kind_of_bytes(file.read(HINT_BYTES))}",
            where=place,
            expected="one of " + ", ".join(READABLE_FORMATS),
        ) from error
    except Exception as error:  # as above
        raise BadInputError(f"the image's header is damaged: {pillow_message(error)}", where=place) from error
    if image.width * image.height > maximum_pixels:
        raise too_large(place, maximum_pixels)
    return image


def too_large(place: str, maximum_pixels: int) -> BadInputError:
    """Returns the error about a picture that nobody will decode."""
    return BadInputError("the image has too many pixels", where=place, expected=f"at most {maximum_pixels} pixels")


def pillow_message(error: Exception) -> str:
    """Returns what Pillow said of a file, not at any length."""
    return f"{type(error).__name__}: {error}"[:LONGEST_REASON]


def kind_of_bytes(first_bytes: bytes) -> str:
    """Returns words for what a file that is no picture probably is."""
    text = first_bytes.lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer (fetch the real file with Git LFS)"
    if b"<svg" in text:
        return "an SVG drawing"
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page (the download failed)"
    return "something else"


def as_rgb(image: Image.Image, place: str) -> Image.Image:
    """Returns a decoded picture as 8-bit RGB.

    Raises:
        BadInputError: If it has 32 bits a pixel and channel.
    """
    if image.mode.startswith("I;16"):
        wide = numpy.asarray(image).astype(numpy.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(numpy.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BadInputError("the image has 32 bits a channel", where=place, expected="8 or 16 bits")
    return image.convert("RGB")


def resolve_inside(root: Path, name: str, source: str) -> Path:
    """Returns the path of a picture named in an annotation, if it lies inside ``root``.

    Nothing is opened: links are followed by name only. ``root`` itself may be a link.

    Args:
        root: Folder of the pictures.
        name: Name as written in the annotation, with forward slashes.
        source: ``FILE:LINE`` or record, for the error.

    Raises:
        BadInputError: If the name is empty, absolute, an address, has a drive letter, a backslash, a NUL or ``..``,
            or leads out of the root through a link.
    """
    is_unsafe = (
        not name
        or len(name) > LONGEST_NAME
        or any(len(part.encode(errors="replace")) > LONGEST_PART for part in name.split("/"))
        or "\0" in name
        or "\\" in name
        or name.startswith("/")
        or ADDRESS.match(name) is not None
        or ".." in name.split("/")
    )
    path = root / name if not is_unsafe else root
    # One look-up is enough where no folder in between can be a link: data sets have hundreds of thousands of names.
    if not is_unsafe and ("/" in name or path.is_symlink()):
        is_unsafe = not Path(os.path.realpath(path)).is_relative_to(real_path(root))
    if is_unsafe:
        raise BadInputError(
            f"the image name {name!r:.80} leads out of the image folder, or is no name",
            where=source,
            expected="a name inside the image folder, relative to it",
        )
    return path


@lru_cache(maxsize=64)
def real_path(path: Path) -> Path:
    """Returns a folder's path with all links followed."""
    return Path(os.path.realpath(path))
