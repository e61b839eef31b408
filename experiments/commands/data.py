"""Runs ``m2pt data``: hands over to the command that it names."""

import importlib
from collections.abc import Sequence

from experiments.commands.parsers.data import argument_parser
from lightning_m2pt.main import quieten_libraries


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    name = argument_parser().parse_known_args(list(arguments))[0].command
    module = importlib.import_module(f"experiments.commands.data_{name}")
    quieten_libraries()  # again: Lightning sets its loggers' levels when it is imported
    return int(module.main(list(arguments)[1:]))
