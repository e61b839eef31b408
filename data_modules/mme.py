"""MME writer (reader follows)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from data_modules.files import write_image, write_text


@dataclass(frozen=True)
class MMEItem:
    """One picture ((H, W, 3) uint8) to write and its two questions with ``Yes`` or ``No``."""

    subtask: str
    name: str
    image: numpy.ndarray
    questions: tuple[tuple[str, str], tuple[str, str]]


def write_mme(root: Path, items: Sequence[MMEItem]) -> None:
    """Writes items in MME's side-by-side layout: ``<subtask>/<name>.png`` and ``<subtask>/<name>.txt``."""
    for item in items:
        folder = root / item.subtask
        write_image(folder / f"{item.name}.png", item.image)
        write_text(folder / f"{item.name}.txt", "".join(f"{text}\t{answer}\n" for text, answer in item.questions))
