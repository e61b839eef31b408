"""``m2pt export``: write what other tools read (predictions)."""

import importlib
from collections.abc import Sequence

from lightning_m2pt.system.console import VerbParser

COMMANDS = {"predictions": ("lightning_m2pt.commands.export_predictions", "our answers, for a peer's own scorer")}


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    listed = "; ".join(f"{name}: {summary}" for name, (_, summary) in COMMANDS.items())
    parser = VerbParser(
        prog="m2pt export", description=__doc__, epilog="m2pt export NAME --help tells about one of them"
    )
    parser.add_argument("name", choices=COMMANDS, help=listed)
    name = parser.parse_args(list(arguments)[:1]).name
    return int(importlib.import_module(COMMANDS[name][0]).main(list(arguments)[1:]))
