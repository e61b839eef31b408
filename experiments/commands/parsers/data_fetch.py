"""``m2pt data fetch``: brings a set to this machine, as far as its terms allow, and says what is left to do by hand.

The first fetch resolves the source's newest revision to a commit and records it in ``source.json`` beside the files,
with the SHA-256 of each. From then on the set is that commit: the same command checks the files, repairs what is
missing or changed, and refuses anything else. ``--revision`` moves to another one. Files become visible whole. After an
interrupted fetch the same command keeps the files that are whole; one that was cut off starts again.
"""

import argparse
from pathlib import Path

from experiments.datasets.sources import SOURCES
from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the command's flags."""
    parser = VerbParser(
        prog="m2pt data fetch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=SOURCES, help="the set")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of all sets (default: M2PT_DATA, or data)")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of the hub's repository")
    parser.add_argument("--repository", metavar="OWNER/NAME", help="another copy of the hub's repository")
    parser.add_argument("--form", choices=["original", "hub"], help="the set's own files, or the hub's Parquet files")
    return parser
