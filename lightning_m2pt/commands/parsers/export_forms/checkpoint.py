"""``m2pt export checkpoint``: an M2PT adapter and its base as a checkpoint that the published code loads.

Writes two shards, their index, config.json and the tokenizer: every tensor of the model under its published name, the
tuned projector, head and prompts in place. Only what the published code can do is written: deep prompts on every layer,
in front of CLS, with the official rows.
"""

import argparse
from pathlib import Path

from lightning_m2pt.commands.parsers.tuned import add_tuned_flags
from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the command's flags."""
    parser = VerbParser(
        prog="m2pt export checkpoint", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_tuned_flags(parser, "a tuned run's folder", required=True)
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="with --adapter: an experiment on its base"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder that is made")
    return parser
