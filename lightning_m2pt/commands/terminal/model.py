"""The model that a command line names, and the untouched one beside it."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_m2pt.application.loading import load
from lightning_m2pt.application.model import Model
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.console import OUT, people_read_errors
from lightning_m2pt.visible_text import visible

TUNED, FROZEN = "tuned", "frozen"
IN_PROGRAMS = ", or fetch=True"
"""What only a program can do about an adapter that was not fetched."""
WORDS = {
    "source": "command line: RUN",
    **{name: f"command line: --{name}" for name in ("revision", "base", "device", "dtype", "quantization")},
}
"""What arguments of ``load`` are called on a command line."""


def answering_models(own: argparse.Namespace) -> dict[str, Model]:
    """Loads what the flags of ``add_model_flags`` name; with ``--compare`` the untouched model comes second.

    Raises:
        BadInputError: If something is missing, damaged or does not fit.
    """
    with shown_as_busy(f"loading {own.source}"):
        try:
            tuned = load(
                own.source,
                revision=own.revision,
                base=own.base,
                device=own.device,
                dtype=own.dtype,
                quantization=own.quantization,
            )
        except BadInputError as error:
            where, hint = WORDS.get(error.where, error.where), error.hint.removesuffix(IN_PROGRAMS)
            raise BadInputError(error.what, where=where, expected=error.expected, hint=hint) from error
        return {TUNED: tuned, FROZEN: tuned.frozen()} if own.compare else {TUNED: tuned}


@contextmanager
def shown_as_busy(text: str) -> Iterator[None]:
    """Says on standard error what is being done, as long as it lasts, if a terminal is there."""
    if not sys.stderr.isatty():
        yield
        return
    with people_read_errors(), OUT.status(visible(text)):
        yield
