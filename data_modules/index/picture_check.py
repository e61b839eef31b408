"""What is asked of all pictures of a set before one is opened: whether they are there, and how large they are."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from data_modules.base import PictureOfItem, refuse_missing
from data_modules.index.picture_table import IN_MEMORY, PictureStates
from data_modules.index.sample_table import SampleTable, between


@dataclass(frozen=True)
class NamedPictures(Sequence[PictureOfItem]):
    """Pictures of a table with the records that name them first.

    Attributes:
        table: The table.
        numbers: Which pictures.
    """

    table: SampleTable
    numbers: Sequence[int]

    def __len__(self) -> int:
        """Returns the number of pictures."""
        return len(self.numbers)

    def __getitem__(self, place: int) -> PictureOfItem:  # type: ignore[override]  # nobody takes several at once
        """Returns a picture."""
        number = self.numbers[place]
        image = self.table.pictures[number]
        source = self.table.texts["sources"][int(self.table.first_of_pictures[number])]
        return PictureOfItem(f"picture {number}" if isinstance(image, numpy.ndarray) else str(image), image, source)


def pictures_there(table: SampleTable, states: PictureStates) -> NamedPictures:
    """Returns the pictures that are there.

    Raises:
        BadInputError: If files are missing: the first ten and their number.
    """
    missing = set(states.missing)
    refuse_missing(NamedPictures(table, sorted(missing)), len(table.pictures))
    return NamedPictures(table, [number for number in range(len(table.pictures)) if number not in missing])


def table_fingerprint(table: SampleTable, states: PictureStates) -> str:
    """Returns what ``items_fingerprint`` says of all samples; they are not put together for it."""
    questions, answers = table.texts["questions"], table.texts["answers"]
    ids, image_ids, systems = table.texts["ids"], table.texts["image_ids"], table.texts["systems"]
    sizes: list[int | str] = states.sizes.tolist()
    for number in numpy.flatnonzero(table.pictures.kinds == IN_MEMORY).tolist():
        image = table.pictures[number]
        if isinstance(image, numpy.ndarray):
            sizes[number] = hashlib.sha256(image.tobytes()).hexdigest()
    digest = hashlib.sha256()
    for place in range(len(table)):
        texts = [[questions[number], answers[number]] for number in between(table.turn_starts, place)]
        own = between(table.picture_starts, place)[int(table.earlier[place]) :]
        shown = [sizes[number] for number in table.picture_numbers[own.start : own.stop].tolist()]
        said = [ids[place], image_ids[place], texts, shown[0] if len(shown) == 1 else shown]
        in_turns = table.shown[table.shown_starts[place] : table.shown_starts[place + 1]].tolist()
        if systems[place] or in_turns:  # as ``rarely_said``
            said += [systems[place], in_turns]
        line = json.dumps(said)
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()
