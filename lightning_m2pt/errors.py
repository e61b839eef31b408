"""The errors a user can cause, and the exit code each one ends with.

A user's mistake ends in three lines on standard error: what is wrong and where, what was expected, and one hint.
"""

from enum import IntEnum
from functools import partial

from lightning_m2pt.visible_text import visible


class ExitCode(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    BUG = 1
    BAD_INPUT = 2
    ENVIRONMENT = 3
    DIVERGED = 4
    INTERRUPTED = 130
    TERMINATED = 143


class M2PTError(Exception):
    """An error with a place, an expectation and a hint, shown in at most three lines.

    Args:
        what: What is wrong, in one sentence without a full stop.
        where: File, ``FILE:LINE``, configuration key, or ``command line``; may be several joined with ``: ``.
        expected: What would have been right.
        hint: One thing to do about it.
    """

    exit_code = ExitCode.BUG

    def __init__(self, what: str, *, where: str = "", expected: str = "", hint: str = "") -> None:
        self.what = what
        self.where = where
        self.expected = expected
        self.hint = hint
        super().__init__(self.message())

    def __reduce__(self) -> tuple[partial["M2PTError"], tuple[()]]:
        """Lets an error come back from a loader's worker process with all its parts."""
        parts = {"where": self.where, "expected": self.expected, "hint": self.hint}
        return partial(type(self), self.what, **parts), ()

    def message(self) -> str:
        """Returns the one to three lines a user sees; nothing in them drives a terminal."""
        place = f"{self.where}: " if self.where else ""
        lines = [f"error: {place}{self.what}"]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(visible(line.replace("\n", " ")) for line in lines)


class BadInputError(M2PTError, ValueError):
    """Bad input or configuration: the user can repair it. Exit code 2."""

    exit_code = ExitCode.BAD_INPUT


class EnvironmentFailure(M2PTError, RuntimeError):
    """The machine cannot do it: disk, permission, driver, missing package. Exit code 3."""

    exit_code = ExitCode.ENVIRONMENT


class DivergedError(M2PTError, ArithmeticError):
    """A non-finite loss or gradient stopped training before the update. Exit code 4."""

    exit_code = ExitCode.DIVERGED
