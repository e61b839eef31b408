"""``m2pt models show``: what a model is, and how many numbers it has.

All of it comes from the model's config.json, which has to be there; weights are not read and need not be.

Examples:
  m2pt models show models/SmolLM2-135M-Instruct
  m2pt models show HuggingFaceTB/SmolLM2-135M-Instruct --json
"""

import argparse

from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the command's flags."""
    parser = VerbParser(
        prog="m2pt models show",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a folder, or OWNER/NAME of a model that was fetched")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of a fetched model (default: main)")
    parser.add_argument("--json", action="store_true", help="write JSON")
    return parser
