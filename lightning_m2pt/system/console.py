"""Where people read: one console on standard output."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from typing_extensions import override

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.help_width import fitted
from lightning_m2pt.system.path_lengths import refuse_too_long
from lightning_m2pt.system.ranks import is_first_process, process_name
from lightning_m2pt.system.standard_streams import NOBODY_READS, to_null_device
from lightning_m2pt.visible_text import visible

WIDTH_WITHOUT_TERMINAL = 120
"""A log file has no width; tables need one."""

OUR_PACKAGES = ("callbacks", "data_modules", "experiments", "lightning_m2pt")

OTHER_LOG = "log-of-process-{}.txt"
"""What another process than the first has warned of, by its name."""

LAYOUT = "\n\t"
"""Control characters that texts for people may hold."""


class VisibleConsole(Console):
    """A console on which texts, whoever wrote them, appear as letters: only the console itself drives the terminal."""

    @override
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text, LAYOUT), segment.style)

    @override
    def on_broken_pipe(self) -> None:
        """Ends the process as a shell expects of one whose reader has gone; rich's own exit code is that of a bug."""
        with suppress(OSError):
            to_null_device(self.file.fileno())
        raise SystemExit(NOBODY_READS)


class VisibleFormatter(logging.Formatter):
    """Formats log records in the same way, for the terminal and for files that a terminal will show."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record), LAYOUT)


class ConsoleHandler(logging.Handler):
    """Shows log records on the console, above a bar that is drawn there, where a stream of its own would cut it."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        OUT.print(self.format(record), markup=False)


IS_TERMINAL = sys.stdout is not None and sys.stdout.isatty()
"""Standard output is ``None`` where the shell has closed it."""

OUT = VisibleConsole(
    highlight=False, emoji=False, soft_wrap=True, width=None if IS_TERMINAL else WIDTH_WITHOUT_TERMINAL
)
"""Without emoji, or rich writes another letter for the ``:b:`` of a name, in JSON too."""


def is_main_process() -> bool:
    """Tells whether this is the process that writes and talks, before any process group exists."""
    return is_first_process(os.environ)


class VerbParser(argparse.ArgumentParser):
    """A verb's own flags, never shortened: ``--data`` is the experiment's, not a beginning of ``--data.root``.

    Args:
        takes_settings: Whether words that it does not know are settings of an experiment, and not mistakes.
    """

    def __init__(self, *args: Any, takes_settings: bool = False, **settings: Any) -> None:
        super().__init__(*args, **{**settings, "allow_abbrev": False})
        self.takes_settings = takes_settings

    def add_commands(self, name: str, commands: Mapping[str, tuple[Callable[[], "VerbParser"], str]]) -> None:
        """Adds commands with parsers of their own.

        Args:
            name: What the chosen command is called among the parsed words.
            commands: How to make each command's parser, and what it is for, in a line.
        """
        # argparse makes a command's parser by calling this with what `add_parser` is given.
        made: Any = lambda make, **_: make()  # noqa: E731
        chosen: Any = self.add_subparsers(dest=name, metavar="NAME", required=True, parser_class=made)
        for command, (make, summary) in commands.items():
            chosen.add_parser(command, help=summary, make=make)

    def check(self, words: Sequence[str]) -> None:
        """Looks at a verb's words before anything heavy is imported; ``--help`` ends here.

        Raises:
            BadInputError: If a word is wrong, or one is missing.
        """
        if self.takes_settings:
            self.parse_known_args(list(words))
        else:
            self.parse_args(list(words))

    @override
    def format_help(self) -> str:
        """Returns the verb's help, as wide as the terminal."""
        return fitted(super().format_help())

    # argparse overloads the signature by the namespace that is given; nobody here gives one.
    @override
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses words.

        Raises:
            BadInputError: If a word is wrong, one is missing, or a path is longer than any file's.
        """
        parsed = super().parse_known_args(args, namespace)
        for action in self._actions:
            value = getattr(parsed[0], action.dest, None)
            for path in value if isinstance(value, list) else [value]:
                if isinstance(path, Path):
                    flag = action.option_strings[-1] if action.option_strings else action.metavar or action.dest
                    refuse_too_long(path, f"command line: {flag}")
        return parsed

    @override
    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print with its usage."""
        raise BadInputError(message, where="command line", expected=f"see `{self.prog} --help`")


@contextmanager
def log_file(run: Path) -> Iterator[None]:
    """Shows what the project's own loggers say, and keeps it in the run's ``log.txt``.

    Of several processes the first one does. What another one warns of is kept in a file of its own, which is there from
    its first warning on; the first process names these files at the end.
    """
    if not is_main_process():
        other = logging.FileHandler(run / OTHER_LOG.format(process_name(os.environ)), encoding="utf-8", delay=True)
        with told_to([other], logging.WARNING):
            yield
        return
    run.mkdir(parents=True, exist_ok=True)
    started = time.time()
    try:
        with told_to([ConsoleHandler(), logging.FileHandler(run / "log.txt", encoding="utf-8")], logging.INFO):
            yield
    finally:
        # The times of files are coarse.
        others = [path for path in sorted(run.glob(OTHER_LOG.format("*"))) if path.stat().st_mtime > started - 1]
        if others:
            say(f"other processes warned: {', '.join(str(short_path(path)) for path in others)}")


@contextmanager
def told_to(handlers: Sequence[logging.Handler], level: int) -> Iterator[None]:
    """Hands what the project's own loggers say to handlers, from a level on, while the block runs."""
    for handler in handlers:
        is_console = isinstance(handler, ConsoleHandler)
        handler.setFormatter(VisibleFormatter("%(message)s" if is_console else "%(asctime)s %(message)s"))
        handler.setLevel(level)
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
        for handler in handlers:
            handler.close()


def say(text: str) -> None:
    """Writes one line for a person, once however many processes there are."""
    if is_main_process():
        OUT.print(visible(text, LAYOUT), markup=False)


@contextmanager
def people_read_errors(instead: bool = True) -> Iterator[None]:
    """Lets people read on standard error while the block runs, where a program reads standard output.

    Args:
        instead: False changes nothing.
    """
    before = OUT.stderr
    OUT.stderr = before or instead
    try:
        yield
    finally:
        OUT.stderr = before


def short_path(path: Path) -> Path:
    """Returns a path as seen from the working directory, if it lies there."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
