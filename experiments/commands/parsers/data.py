"""``m2pt data``: fetch a set (fetch), check it (check), look at it (show), render the testbed (testbed)."""

import argparse

from experiments.commands.parsers import data_check, data_fetch, data_show, data_testbed
from lightning_m2pt.system.console import VerbParser

COMMANDS = {
    "check": (
        data_check.argument_parser,
        "read a set to its end: mistakes, numbers, lengths, what is there twice or in an evaluation set",
    ),
    "fetch": (
        data_fetch.argument_parser,
        "bring a set to this machine, with its revision pinned and its files hashed",
    ),
    "show": (data_show.argument_parser, "write a contact sheet of a set: pictures, questions, right answers"),
    "testbed": (data_testbed.argument_parser, "render the embedded tuning and evaluation sets in the official forms"),
}


def argument_parser() -> VerbParser:
    """Returns the verb's flags: those of its commands."""
    parser = VerbParser(
        prog="m2pt data",
        description=__doc__,
        epilog="m2pt data NAME --help tells about one of them",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        takes_settings=True,  # of `check` and `show`; the other commands refuse what they do not know themselves
    )
    parser.add_commands("command", COMMANDS)
    return parser
