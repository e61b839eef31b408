"""Where people read: one console on standard output."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from lightning_m2pt.errors import BadInputError

WIDTH_WITHOUT_TERMINAL = 120
"""A log file has no width; tables need one."""

OUR_PACKAGES = ("callbacks", "data_modules", "experiments", "lightning_m2pt")
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")

OUT = Console(
    highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
)
"""Without emoji, or rich writes another letter for the ``:b:`` of a name, in JSON too."""


def is_main_process() -> bool:
    """Tells whether this is the process that writes and talks, before any process group exists."""
    return not any(int(os.environ.get(name, "0")) for name in RANK_VARIABLES)


class VerbParser(argparse.ArgumentParser):
    """A verb's own flags, never shortened: ``--data`` is the experiment's, not a beginning of ``--data.root``."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{**settings, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print with its usage."""
        raise BadInputError(message, where="command line", expected=f"see `{self.prog} --help`")


@contextmanager
def log_file(run: Path) -> Iterator[None]:
    """Shows what the project's own loggers say, and keeps it in the run's ``log.txt``."""
    if not is_main_process():
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout), logging.FileHandler(run / "log.txt")]
    handlers[0].setFormatter(logging.Formatter("%(message)s"))
    handlers[1].setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    loggers = [logging.getLogger(package) for package in OUR_PACKAGES]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        for handler in handlers:
            logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            for handler in handlers:
                logger.removeHandler(handler)
        handlers[1].close()


def say(text: str) -> None:
    """Writes one line for a person, once however many processes there are."""
    if is_main_process():
        OUT.print(text, markup=False)
