"""``m2pt export predictions``: write our answers in a peer's format, so that its own tool can score them."""

import argparse
from pathlib import Path

from lightning_m2pt.metrics.peer_formats.formats import FORMATS
from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the command's flags; its help tells every format's reader."""
    parser = VerbParser(
        prog="m2pt export predictions", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    width = max(map(len, FORMATS))
    listed = "\n".join(
        f"{name.ljust(width)}  {peer.reader} ({', '.join(peer.sets) or 'any set'})" for name, peer in FORMATS.items()
    )
    parser.add_argument("predictions", type=Path, help="a prediction file (predictions/<set>.jsonl)")
    parser.add_argument("--format", choices=FORMATS, required=True, help=listed)
    parser.add_argument("--output", type=Path, required=True, help="folder of the peer's files")
    parser.add_argument("--force", action="store_true", help="overwrite files that are there")
    return parser
