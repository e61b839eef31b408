"""Tells whether two pictures are the same one up to how they were stored: re-encoded, made smaller, brighter or darker.

Two steps, because sets have hundreds of thousands of pictures. A sketch, 8 x 8 greys less the plane that fits them best
and scaled to length one, is compared with all others at once; pairs that look alike there are opened and compared pixel
by pixel at the size of the smaller one. Its greys are fitted with one factor (how much brighter), and what is left has
to be small in grey levels (JPEG's noise has a size, which grows with contrast) and beside the picture's own contrast
and detail, and the colours have to agree. Hashes of 64 bits were tried first: 111 of half a million pairs of digits
are within 4 bits of each other, and a red thing and a green one have the same.

Cropped, turned, mirrored and drawn-over pictures are other pictures here. So are two of nearly one colour, or of a sky
that only darkens towards one side: nothing is left to compare, and only the same content counts. Pictures below 16
pixels are not found where they were made smaller.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy
from PIL import Image

SKETCH_SIDE = 8
ALIKE_SKETCHES = 0.92
"""Least product of two sketches that are looked at; re-encoded pictures have more."""
FLAT = 1.0
"""Grey levels (standard deviation of the sketch) below which nothing is left to compare."""
MOST_ALIKE = 4
"""A picture is compared with so many of those whose sketches look most alike; digits have thousands of them."""
COMPARED_SIDE = 64
"""Longest side at which two pictures are compared."""
COLOUR_FIELDS = 4
LEVELS, LEVELS_OF_CONTRAST = 3.5, 0.09
LEVELS_OF_SMOOTH, LEVELS_OF_STEPS = 2.0, 0.2
"""How many grey levels two pictures may differ by: some, and more for each level of their contrast; and likewise for
each level between neighbours, for a picture is moved by a fifth of a pixel when it differs by a fifth of its steps."""
LEAST_CORRELATION = 0.85
MOST_COLOUR_LEVELS = 5.0
LARGEST_FACTOR = 1.3
SATURATED = 250
ROUNDED_ASPECT = 1.5
"""Pixels that a side may be off for rounding when a picture is made smaller."""
PAIRS_AT_ONCE = 2**25
SHRINKING = (Image.Resampling.BICUBIC, Image.Resampling.BOX, Image.Resampling.LANCZOS, Image.Resampling.BILINEAR)
"""Ways in which the larger picture may have been made smaller."""
LUMA = numpy.array([0.299, 0.587, 0.114], numpy.float32)


def sketch(image: Image.Image) -> numpy.ndarray:
    """Returns (64,) float32 of length one, or zeros of a picture in which there is nothing to compare.

    Args:
        image: RGB, of any size.
    """
    grey = image.convert("L").convert("F").resize((SKETCH_SIDE, SKETCH_SIDE), Image.Resampling.BILINEAR)
    values = without_plane(numpy.asarray(grey, numpy.float32)).reshape(-1)
    if values.std() < FLAT:
        return numpy.zeros_like(values)
    return values / numpy.float32(numpy.linalg.norm(values))


def alike(ours: numpy.ndarray, others: numpy.ndarray, most: int = MOST_ALIKE) -> Iterator[tuple[int, int]]:
    """Yields the pairs of positions whose sketches look alike, of each of ours at most some, the most alike ones first.

    Args:
        ours: (N, 64) float32.
        others: (M, 64) float32. If it is ``ours`` itself, a position is paired with earlier ones only.
        most: Pairs of one position.
    """
    rows = max(1, PAIRS_AT_ONCE // max(1, len(others)))
    for start in range(0, len(ours), rows):
        stop = min(start + rows, len(ours))
        if ours is others:
            products = numpy.tril(ours[start:stop] @ others[:stop].T, start - 1)
        else:
            products = ours[start:stop] @ others.T
        for row in numpy.flatnonzero((products >= ALIKE_SKETCHES).any(axis=1)):
            columns = numpy.flatnonzero(products[row] >= ALIKE_SKETCHES)
            likest = columns[numpy.argsort(-products[row, columns], kind="stable")][:most]
            for column in likest:
                yield start + int(row), int(column)


def are_near(one: Image.Image, other: Image.Image) -> bool:
    """Tells whether two RGB pictures are one up to encoding, size and brightness."""
    small, large = sorted((one, other), key=lambda image: image.width * image.height)
    if not have_same_shape(small, large):
        return False
    size = compared_size(small)
    seen = numpy.asarray(small.resize(size, Image.Resampling.BICUBIC), numpy.float32)
    ways = SHRINKING if large.size != small.size else SHRINKING[:1]
    return any(fit(numpy.asarray(large.resize(size, way), numpy.float32), seen) for way in ways)


def have_same_shape(small: Image.Image, large: Image.Image) -> bool:
    """Tells whether one picture has the proportions of another, but for rounding."""
    stretched = (small.width / large.width) / (small.height / large.height)
    return abs(stretched - 1) <= ROUNDED_ASPECT / min(small.size)


def compared_size(small: Image.Image) -> tuple[int, int]:
    """Returns the width and height at which two pictures are compared."""
    shrunk = min(1.0, COMPARED_SIDE / max(small.size))
    return max(1, round(small.width * shrunk)), max(1, round(small.height * shrunk))


def fit(one: numpy.ndarray, other: numpy.ndarray) -> bool:
    """Tells whether two pictures of one size, (H, W, 3) float32 in 0..255, agree but for brightness and noise."""
    factor = brightness(one @ LUMA, other @ LUMA)
    if factor < 1:  # what is white in the brighter one says nothing about the darker
        one, other = other, one
        factor = brightness(one @ LUMA, other @ LUMA)
    if not 1 / LARGEST_FACTOR < factor < LARGEST_FACTOR:
        return False
    made = numpy.minimum(one * factor, 255.0)
    grey, seen = made @ LUMA, other @ LUMA
    left = float(numpy.sqrt(((grey - seen) ** 2).mean()))
    if left > min(LEVELS + LEVELS_OF_CONTRAST * float(seen.std()), LEVELS_OF_SMOOTH + LEVELS_OF_STEPS * steps(seen)):
        return False
    grey, seen = without_plane(grey), without_plane(seen)
    contrasts = float(grey.std() * seen.std())
    if contrasts == 0 or float((grey * seen).mean()) < LEAST_CORRELATION * contrasts:
        return False
    apart = colours(made) - colours(other)
    return float(numpy.sqrt((apart**2).mean())) <= MOST_COLOUR_LEVELS


def steps(grey: numpy.ndarray) -> float:
    """Returns by how many levels neighbours in a grey picture, (H, W), differ, in the square mean."""
    down, across = numpy.diff(grey, axis=0), numpy.diff(grey, axis=1)
    return float(numpy.sqrt(sum((each**2).mean() for each in (down, across) if each.size)))


def brightness(one: numpy.ndarray, other: numpy.ndarray) -> float:
    """Returns the factor between two grey pictures, white left out; 0 where there is nothing else."""
    open_ended = (one < SATURATED) & (other < SATURATED)
    energy = float((one * one * open_ended).sum())
    return float((one * other * open_ended).sum()) / energy if energy else 0.0


def colours(pixels: numpy.ndarray) -> numpy.ndarray:
    """Returns how far red and blue are from grey in a few large fields of a picture, (H, W, 3) float32."""
    apart = (pixels - (pixels @ LUMA)[..., None])[..., [0, 2]]
    height, width = pixels.shape[:2]
    down, across = edges(height), edges(width)
    summed = numpy.add.reduceat(numpy.add.reduceat(apart, down, axis=0), across, axis=1)
    areas = numpy.diff([*down, height])[:, None] * numpy.diff([*across, width])[None]
    return summed / areas[..., None]


def edges(length: int) -> Sequence[int]:
    """Returns where the fields along a side begin."""
    fields = min(COLOUR_FIELDS, length)
    return [length * number // fields for number in range(fields)]


def without_plane(values: numpy.ndarray) -> numpy.ndarray:
    """Returns (H, W) values less the plane that fits them best."""
    flat = values.reshape(-1)
    basis = planes(*values.shape)
    left: numpy.ndarray = flat - basis @ (basis.T @ flat)
    return left.reshape(values.shape)


@lru_cache(maxsize=256)
def planes(height: int, width: int) -> numpy.ndarray:
    """Returns (H * W, 3) float32: an orthonormal basis of all planes."""
    rows, columns = numpy.mgrid[:height, :width].astype(numpy.float64)
    stacked = numpy.stack([numpy.ones(height * width), rows.reshape(-1), columns.reshape(-1)], axis=1)
    basis = numpy.linalg.svd(stacked, full_matrices=False)[0]
    return basis.astype(numpy.float32)
