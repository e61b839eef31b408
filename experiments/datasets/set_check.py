"""Everything ``m2pt data check`` finds out about one set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from data_modules.base import DataModule, PictureOfItem, distinct_pictures, pictures_of
from data_modules.benchmark import BenchmarkDataModule
from data_modules.conversations import Conversations
from data_modules.instruction import InstructionDataModule
from data_modules.vision_flan import VisionFlan
from experiments.datasets.check_report import counting_bar, mistakes_in
from experiments.datasets.overlap import SamePicture, names_in, pictures_in, pictures_twice
from experiments.datasets.picture_looks import Looks, looks_of
from experiments.datasets.set_facts import SetFacts, facts_of, records_twice
from lightning_m2pt.errors import BadInputError, M2PTError
from lightning_m2pt.inputs.mistakes import mistakes_of
from lightning_m2pt.inputs.picture_layout import RunRows
from lightning_m2pt.inputs.samples import Question, Sample

Depth: TypeAlias = Literal["near", "exact", "none"]
"""How pictures are compared: by content and looks, by content alone, or not at all."""


@dataclass(frozen=True)
class SetOverlap:
    """What a set shares with an evaluation set.

    Attributes:
        name: The evaluation set's.
        place: Its folder.
        pictures: How many pictures it has.
        names: Names of our pictures that are among its own.
        found: Our pictures that are among its own.
        samples: How many of our samples show one of these.
        problem: Why it could not be read; empty if it could.
    """

    name: str
    place: str
    pictures: int = 0
    names: tuple[str, ...] = ()
    found: tuple[SamePicture, ...] = ()
    samples: int = 0
    problem: str = ""


@dataclass(frozen=True)
class SetCheck:
    """What was found in one set.

    Attributes:
        name: What the set is called.
        place: Its file or folder.
        mistakes: Everything wrong in it.
        recognised: What it was recognised as, and what was left out of what follows, in lines.
        facts: What it holds, without what is wrong in it; None where nothing can be left out.
        records_twice: Records that say what an earlier one says, and that one.
        pictures_twice: Pictures that are there before under another name.
        flat: Pictures of nearly one colour, which are compared by content alone.
        overlaps: What it shares with each evaluation set.
        depth: How pictures were compared.
    """

    name: str
    place: str
    mistakes: tuple[BadInputError, ...] = ()
    recognised: tuple[str, ...] = ()
    facts: SetFacts | None = None
    records_twice: tuple[tuple[Sample | Question, Sample | Question], ...] = ()
    pictures_twice: tuple[SamePicture, ...] = ()
    flat: int = 0
    overlaps: tuple[SetOverlap, ...] = ()
    depth: Depth = "near"


def checked_set(
    data: DataModule,
    check: SetCheck,
    others: Sequence[BenchmarkDataModule],
    run_rows: RunRows,
    room: int,
    decode: bool,
) -> SetCheck:
    """Checks a set, counts what is right in it, and compares that with others.

    Args:
        data: The set, connected.
        check: Its name, its place, what it was recognised as, and how pictures are compared.
        others: Evaluation sets, of which none has to be readable.
        run_rows: What a picture's rows are in the language model.
        room: How many rows the language model takes behind the learned ones.
        decode: Decode every picture in whole, to find the damaged ones.
    """
    mistakes = mistakes_in(data, decode)
    found = replace(check, mistakes=mistakes)
    if mistakes and not leaves_out(data):
        return found
    try:
        facts = facts_of(data, run_rows, room)
    except BadInputError as error:
        return found if mistakes else replace(found, mistakes=(error,))
    found = replace(found, mistakes=mistakes or too_long(data, run_rows, room))
    items = data.items()
    notes = data.notes if isinstance(data, InstructionDataModule) else ()
    found = replace(found, recognised=tuple(notes), facts=facts, records_twice=tuple(records_twice(items)))
    if check.depth == "none":
        return found
    looks = looked_at(data, items, check)
    return replace(
        found,
        pictures_twice=tuple(pictures_twice(looks)),
        flat=looks.flat() if check.depth == "near" else 0,
        overlaps=tuple(overlap_with(other, items, looks, check) for other in others),
    )


def too_long(data: DataModule, run_rows: RunRows, room: int) -> tuple[BadInputError, ...]:
    """Returns the mistake of samples that do not fit into the language model's positions, if there are any."""
    try:
        if isinstance(data, InstructionDataModule):
            data.check_lengths(run_rows, room)
        if isinstance(data, BenchmarkDataModule):
            data.check_lengths(run_rows, room - data.max_new_tokens)
    except BadInputError as error:
        return mistakes_of(error)
    return ()


def leaves_out(data: DataModule) -> bool:
    """Lets a set leave out its wrong records from now on, if it can."""
    if not isinstance(data, Conversations) or isinstance(data, VisionFlan):
        return False
    data.on_error = "leave_out"
    data.forget()
    return True


def looked_at(data: DataModule, items: Sequence[Sample | Question], check: SetCheck) -> Looks:
    """Returns how all pictures of a set look; where people watch, a bar shows how far it is."""
    with counting_bar(f"{type(data).__name__}: comparing pictures") as on_picture:
        return looks_of(distinct_pictures(items), check.depth == "near", on_picture)


def overlap_with(
    other: BenchmarkDataModule, items: Sequence[Sample | Question], looks: Looks, check: SetCheck
) -> SetOverlap:
    """Returns what a set shares with an evaluation set, or why that cannot be read."""
    place = str(other.root)
    try:
        theirs = other.items()
        seen = looked_at(other, theirs, check)
    except M2PTError as error:
        return SetOverlap(other.name, place, problem=error.message().removeprefix("error: ").splitlines()[0])
    found = pictures_in(looks, seen)
    keys = {each.ours.key for each in found}
    return SetOverlap(
        other.name,
        place,
        len(seen.pictures) + seen.unread,
        tuple(names_in(items, theirs)),
        tuple(found),
        sum(any(picture.key in keys for picture in pictures_of(item)) for item in items),
    )


def shown_place(picture: PictureOfItem) -> str:
    """Returns a picture's name and the record that it belongs to, on one line."""
    return f"{picture.key} ({picture.source})"
