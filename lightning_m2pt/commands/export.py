"""Runs ``m2pt export``: hands over to the command that it names."""

import importlib
from collections.abc import Sequence

from lightning_m2pt.commands.parsers.export import argument_parser


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    name = argument_parser().parse_args(list(arguments)).command
    return int(importlib.import_module(f"lightning_m2pt.commands.export_forms.{name}").main(list(arguments)[1:]))
