"""Runs ``m2pt list``; its flags and what it is for are in ``parsers``."""

import sys
from collections.abc import Sequence

from experiments.commands.parsers.list import argument_parser
from experiments.configuration import catalogue
from lightning_m2pt.errors import ExitCode


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    found = entries_of(argument_parser().parse_args(list(arguments)).kind)
    width = max((len(name) for name, _ in found), default=0)
    sys.stdout.writelines(f"{name.ljust(width)}  {about}".rstrip() + "\n" for name, about in found)
    return ExitCode.DONE


def entries_of(kind: str) -> list[tuple[str, str]]:
    """Returns the names of a kind, each with a line about it."""
    if kind == "rules":
        from lightning_m2pt.metrics.rules import RULES

        return [(name, rule.about) for name, rule in RULES.items()]
    listed = {
        "experiments": catalogue.experiments,
        "methods": catalogue.methods,
        "sets": catalogue.sets,
        "backbones": lambda: [*catalogue.backbones(), *catalogue.backbone_files()],
        "sweeps": catalogue.sweeps,
    }
    return [(entry.name, entry.about) for entry in listed[kind]()]
