"""Pictures of scenes: 48 x 48 RGB, in three domains that differ in background, noise and degradation."""

import functools
from collections.abc import Callable
from enum import Enum

import numpy
from sklearn.datasets import load_digits

from experiments.testbed.scenes import Scene, SceneObject
from experiments.testbed.vocabulary import DIGITS

IMAGE_SIZE = 48
CELL_SIZE = 16
SUPERSAMPLING = 3
TRAINING_SCANS = 1200
"""Digit scans for every training stage; the remaining 597 of scikit-learn's 1,797 are for evaluation only."""
SCAN_SPLIT_SEED = 0

RADII = {"small": 4.6, "large": 7.2}
DIGIT_SIDES = {"small": 11, "large": 16}
COLOUR_VALUES = {
    "red": (0.9, 0.15, 0.15),
    "green": (0.15, 0.8, 0.2),
    "blue": (0.2, 0.3, 0.95),
    "yellow": (0.95, 0.85, 0.15),
    "purple": (0.7, 0.2, 0.8),
    "cyan": (0.15, 0.85, 0.9),
    "white": (0.95, 0.95, 0.95),
}
BLOCK_SIZE = 4
SHIFTED_CONTRAST = 0.5
SHIFTED_GREY = (0.5, 0.588)
"""In the shifted domain the value on the left becomes the value on the right; contrast is about it."""


class Domain(Enum):
    """The three looks of a picture. Pretraining sees the first two, tuning and evaluation the third alone."""

    PRETRAINING = "pretraining"
    INSTRUCTION = "instruction"
    SHIFTED = "shifted"


class ScanSplit(Enum):
    """Which real digit scans a picture may show."""

    TRAINING = "training"
    EVALUATION = "evaluation"


@functools.cache
def digit_scans(split: ScanSplit) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Returns the scans (N, 8, 8) in 0 to 1 and their digits (N,) of one part of ``load_digits``."""
    digits = load_digits()
    order = numpy.random.default_rng(SCAN_SPLIT_SEED).permutation(len(digits.target))
    chosen = order[:TRAINING_SCANS] if split is ScanSplit.TRAINING else order[TRAINING_SCANS:]
    return digits.images[chosen] / 16.0, digits.target[chosen]


@functools.cache
def _scan_indices(split: ScanSplit, digit: int) -> numpy.ndarray:
    return numpy.flatnonzero(digit_scans(split)[1] == digit)


SHAPE_TESTS: dict[str, Callable[[numpy.ndarray, numpy.ndarray, float], numpy.ndarray]] = {
    "circle": lambda x, y, r: x * x + y * y < r * r,
    "square": lambda x, y, r: (abs(x) < 0.85 * r) & (abs(y) < 0.85 * r),
    "triangle": lambda x, y, r: (y < 0.8 * r) & (y > -r) & (abs(x) < 0.56 * (y + r)),
    "diamond": lambda x, y, r: abs(x) + abs(y) < 1.1 * r,
    "plus": lambda x, y, r: ((abs(x) < 0.33 * r) | (abs(y) < 0.33 * r)) & (abs(x) < r) & (abs(y) < r),
    "cross": lambda x, y, r: (
        ((abs(x - y) < 0.45 * r) | (abs(x + y) < 0.45 * r)) & (abs(x) < 0.9 * r) & (abs(y) < 0.9 * r)
    ),
    "ring": lambda x, y, r: (x * x + y * y < r * r) & (x * x + y * y > (0.55 * r) ** 2),
    "frame": lambda x, y, r: ((abs(x) < 0.9 * r) & (abs(y) < 0.9 * r)) & ~((abs(x) < 0.5 * r) & (abs(y) < 0.5 * r)),
    "bar": lambda x, y, r: (abs(x) < r) & (abs(y) < 0.35 * r),
    "moon": lambda x, y, r: (x * x + y * y < r * r) & ((x - 0.5 * r) ** 2 + y * y > (0.8 * r) ** 2),
}
"""Whether the point (x, y), in pixels from the centre, lies inside a shape of radius r."""


@functools.cache
def _shape_mask(shape: str, size: str, shift: tuple[int, int]) -> numpy.ndarray:
    """Returns how much of each pixel of a cell (16, 16) a shape covers, 0 to 1."""
    side = CELL_SIZE * SUPERSAMPLING
    points = (numpy.arange(side) + 0.5) / SUPERSAMPLING - CELL_SIZE / 2
    y, x = numpy.meshgrid(points, points, indexing="ij")
    inside = SHAPE_TESTS[shape](x - shift[1], y - shift[0], RADII[size])
    blocks = inside.reshape(CELL_SIZE, SUPERSAMPLING, CELL_SIZE, SUPERSAMPLING)
    return blocks.mean(axis=(1, 3)).astype(numpy.float32)


def _enlarge(scan: numpy.ndarray, side: int) -> numpy.ndarray:
    """Enlarges a scan (8, 8) to (side, side) bilinearly."""
    size = len(scan)
    position = (numpy.arange(side) + 0.5) * size / side - 0.5
    low = numpy.clip(numpy.floor(position).astype(int), 0, size - 1)
    high = numpy.clip(low + 1, 0, size - 1)
    part = numpy.clip(position - low, 0, 1)
    rows = scan[low] * (1 - part)[:, None] + scan[high] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, high] * part


def _digit_mask(name: str, size: str, shift: tuple[int, int], scan: numpy.ndarray) -> numpy.ndarray:
    side = DIGIT_SIDES[size]
    margin = (CELL_SIZE - side) // 2
    mask = numpy.zeros((CELL_SIZE, CELL_SIZE), numpy.float32)
    mask[margin : margin + side, margin : margin + side] = _enlarge(scan, side)
    return numpy.roll(mask, shift, (0, 1))


def _object_mask(thing: SceneObject, scans: ScanSplit, generator: numpy.random.Generator) -> numpy.ndarray:
    shift = tuple(int(value) for value in generator.integers(-1, 2, 2))
    if not thing.is_digit:
        return _shape_mask(thing.name, thing.size, (shift[0], shift[1]))
    indices = _scan_indices(scans, DIGITS.index(thing.name))
    scan = digit_scans(scans)[0][indices[generator.integers(len(indices))]]
    return _digit_mask(thing.name, thing.size, (shift[0], shift[1]), scan)


def _background(domain: Domain, generator: numpy.random.Generator) -> numpy.ndarray:
    """Returns the background (48, 48, 3): dark and plain, or a tinted grey gradient with blocks."""
    image = numpy.empty((IMAGE_SIZE, IMAGE_SIZE, 3), numpy.float32)
    if domain is Domain.PRETRAINING:
        image[:] = generator.uniform(0, 0.25) + generator.uniform(-0.03, 0.03, 3)
        return image
    ramp = numpy.linspace(-1, 1, IMAGE_SIZE, dtype=numpy.float32)[:, None]
    image[:] = generator.uniform(0.15, 0.45) + generator.uniform(-0.1, 0.1, 3)
    image += (ramp * generator.uniform(-0.15, 0.15, 3))[:, None, :]
    image += (ramp * generator.uniform(-0.15, 0.15, 3))[None, :, :]
    blocks = generator.standard_normal((IMAGE_SIZE // BLOCK_SIZE, IMAGE_SIZE // BLOCK_SIZE))
    image += 0.04 * blocks.repeat(BLOCK_SIZE, 0).repeat(BLOCK_SIZE, 1)[:, :, None]
    return image


def _degrade(image: numpy.ndarray) -> numpy.ndarray:
    """Blurs with a 3 x 3 mean, halves the contrast and brightens: the shifted domain's last step."""
    padded = numpy.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    neighbours = [
        padded[row : row + IMAGE_SIZE, column : column + IMAGE_SIZE] for row in range(3) for column in range(3)
    ]
    old_grey, new_grey = SHIFTED_GREY
    return (numpy.mean(neighbours, axis=0) - old_grey) * SHIFTED_CONTRAST + new_grey


def render(
    scene: Scene,
    generator: numpy.random.Generator,
    domain: Domain = Domain.PRETRAINING,
    scans: ScanSplit = ScanSplit.TRAINING,
) -> numpy.ndarray:
    """Renders a scene.

    Args:
        scene: What to show.
        generator: Decides background, noise, jitter, tint and digit scans.
        domain: Which look.
        scans: Which digit scans may be shown.

    Returns:
        (48, 48, 3) uint8.
    """
    image = _background(domain, generator)
    tint, noise = (0.08, 0.03) if domain is Domain.PRETRAINING else (0.12, 0.09)
    for thing in scene.objects:
        mask = _object_mask(thing, scans, generator)[:, :, None]
        colour = numpy.array(COLOUR_VALUES[thing.colour]) + generator.uniform(-tint, tint, 3)
        top, left = (CELL_SIZE * index for index in divmod(thing.cell, 3))
        cell = image[top : top + CELL_SIZE, left : left + CELL_SIZE]
        cell[:] = cell * (1 - mask) + mask * colour
    image += noise * generator.standard_normal(image.shape, dtype=numpy.float32)
    image = numpy.clip(image, 0, 1)
    if domain is Domain.SHIFTED:
        image = numpy.clip(_degrade(image), 0, 1)
    return (image * 255).astype(numpy.uint8)


def render_grey(scene: Scene, generator: numpy.random.Generator, domain: Domain, scans: ScanSplit) -> numpy.ndarray:
    """Renders a scene as one channel (48, 48) uint8, with the same background, noise and degradation."""
    # One channel of a colour picture, and not the mean of three, which would lessen the noise.
    return numpy.ascontiguousarray(render(scene, generator, domain, scans)[:, :, 1])
