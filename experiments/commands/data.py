"""``m2pt data``: fetch a set (fetch), look at its pictures and questions (show), render the testbed (testbed)."""

import argparse
import importlib
from collections.abc import Sequence

from lightning_m2pt.main import quieten_libraries
from lightning_m2pt.system.console import VerbParser

COMMANDS = {
    "fetch": (
        "experiments.commands.data_fetch",
        "bring a set to this machine, with its revision pinned and its files hashed",
    ),
    "show": ("experiments.commands.data_show", "write a contact sheet of a set: pictures, questions, right answers"),
    "testbed": ("experiments.testbed.render", "render the embedded tuning and evaluation sets in the official forms"),
}


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    width = max(map(len, COMMANDS))
    parser = VerbParser(
        prog="m2pt data",
        description=__doc__,
        epilog="m2pt data NAME --help tells about one of them",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "name",
        choices=COMMANDS,
        help="\n".join(f"{name.ljust(width)}  {summary}" for name, (_, summary) in COMMANDS.items()),
    )
    name = parser.parse_args(list(arguments)[:1]).name
    module = importlib.import_module(COMMANDS[name][0])
    quieten_libraries()  # again: Lightning sets its loggers' levels when it is imported
    return int(module.main(list(arguments)[1:]))
