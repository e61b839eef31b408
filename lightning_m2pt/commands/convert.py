"""Runs ``m2pt convert``; its flags and what it is for are in ``parsers``."""

from collections.abc import Sequence

from lightning_m2pt.commands.parsers.convert import argument_parser
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.storage.foreign.weights import convert
from lightning_m2pt.system.console import say


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own = argument_parser().parse_args(list(arguments))
    for path in convert(own.source, own.output, own.layout):
        say(f"{path} ({path.stat().st_size:,} bytes)")
    return ExitCode.DONE
