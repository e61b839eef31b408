"""Many mistakes at once: raised together where work cannot go on, collected where somebody asks for all of them.

A reader that finds something wrong in one record goes on to the next, and hands over what it found at the end.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TypeVar

from lightning_m2pt.errors import BadInputError, M2PTError

NAMED = 3
LONGEST_NAMED = 160
PARTICULARS = re.compile(r"'[^']*'|\"[^\"]*\"|\S*[/\d]\S*")
"""What differs between two mistakes of one kind: quoted values, paths and numbers."""
Item = TypeVar("Item")
Made = TypeVar("Made")
COLLECTED: ContextVar[list[BadInputError] | None] = ContextVar("collected", default=None)


class SeveralMistakesError(BadInputError):
    """Several mistakes: the first one's three lines, in which two more are named and the rest is counted.

    Args:
        mistakes: Two or more.
    """

    def __init__(self, mistakes: Sequence[BadInputError]) -> None:
        self.mistakes = tuple(mistakes)
        first = mistakes[0]
        others = [place_and_sentence(mistake) for mistake in mistakes[1:NAMED]]
        more = [f"and {len(mistakes) - NAMED:,} more"] if len(mistakes) > NAMED else []
        super().__init__(
            f"{first.what}; also {'; '.join([*others, *more])}",
            where=first.where,
            expected=first.expected,
            hint=first.hint or "`m2pt check` lists all of them",
        )

    def __reduce__(self) -> tuple[partial[M2PTError], tuple[()]]:
        """Lets the error come back from another process with all its mistakes."""
        constructor: Callable[..., M2PTError] = type(self)
        return partial(constructor, self.mistakes), ()


def place_and_sentence(mistake: BadInputError) -> str:
    """Returns where a mistake is and what is wrong, in one line that is not long."""
    place = f"{mistake.where}: " if mistake.where else ""
    return f"{place}{mistake.what:.{LONGEST_NAMED}}"


def mistakes_of(error: BadInputError) -> tuple[BadInputError, ...]:
    """Returns the mistakes that an error stands for: several, or itself."""
    return error.mistakes if isinstance(error, SeveralMistakesError) else (error,)


@contextmanager
def collecting() -> Iterator[list[BadInputError]]:
    """Collects what ``refuse`` is called with while the block runs, instead of raising it.

    What readers return meanwhile lacks the wrong records: nothing but the mistakes may be used afterwards.
    """
    mistakes: list[BadInputError] = []
    token = COLLECTED.set(mistakes)
    try:
        yield mistakes
    finally:
        COLLECTED.reset(token)


def refuse(mistakes: Sequence[BadInputError]) -> None:
    """Raises mistakes, if there are any; where somebody collects them, hands them over and returns.

    Raises:
        BadInputError: The only mistake, or all of them together.
    """
    collected = COLLECTED.get()
    if collected is not None:
        collected += mistakes
    elif mistakes:
        raise mistakes[0] if len(mistakes) == 1 else SeveralMistakesError(mistakes)


def are_collecting() -> bool:
    """Tells whether somebody collects mistakes: work goes on past them then."""
    return COLLECTED.get() is not None


def are_collected() -> bool:
    """Tells whether mistakes were collected already: that nothing is left over is none of its own then."""
    return bool(COLLECTED.get())


def made_of_each(items: Iterable[Item | BadInputError], make: Callable[[Item], Made]) -> list[Made]:
    """Returns what is made of each item; an item that is a mistake, or of which nothing can be made, is refused.

    Args:
        items: Records, or the mistakes in their places.
        make: Raises ``BadInputError`` if the record is wrong.

    Raises:
        BadInputError: At the end, with the mistakes of all items.
    """
    made, mistakes = kept_of_each(items, make)
    refuse(mistakes)
    return made


def kept_of_each(
    items: Iterable[Item | BadInputError], make: Callable[[Item], Made]
) -> tuple[list[Made], list[BadInputError]]:
    """Returns what is made of each item, and the mistakes of those of which nothing can be made.

    Args:
        items: Records, or the mistakes in their places.
        make: Raises ``BadInputError`` if the record is wrong.
    """
    made: list[Made] = []
    mistakes: list[BadInputError] = []
    for item in items:
        if isinstance(item, BadInputError):
            mistakes.append(item)
            continue
        try:
            made.append(make(item))
        except BadInputError as error:
            error.__cause__ = error.__context__ = None  # or every one would keep a stack of frames
            mistakes += mistakes_of(error.with_traceback(None))
    return made, mistakes


def kind_of(what: str) -> str:
    """Returns a mistake's sentence without what differs between two of its kind."""
    return PARTICULARS.sub("...", what)
