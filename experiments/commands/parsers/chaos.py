"""``m2pt chaos``: kill a real training on this disk again and again, and compare every file with an undisturbed one.

A small ``fit`` or ``train`` (embedded backbone, invented records, dropout, validation during training, loader workers
0 and 2 in turn) is ended by SIGKILL at random instants and inside writes: at a call that changes the disk, before it
or up to a few milliseconds into it. The same command is then given again, until it ends. Every file must be the one
that an uninterrupted command leaves. The seed decides what is aimed at; what a kill at an instant meets is up to the
machine. A start is a copy of this process, in which everything is imported; --fresh-processes starts new interpreters.
"""

import argparse
from pathlib import Path

from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the verb's flags."""
    parser = VerbParser(prog="m2pt chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how often to kill (20)")
    parser.add_argument("--seed", type=int, default=0, help="decides what is aimed at (0)")
    parser.add_argument("--verb", choices=("fit", "train"), default="fit", help="what is killed (fit)")
    parser.add_argument("--folder", type=Path, help="an empty folder on the disk in question (a new one in outputs/)")
    parser.add_argument("--keep", action="store_true", help="keep the folder even if all files are equal")
    parser.add_argument("--fresh-processes", action="store_true", help="start new interpreters: slower by the imports")
    return parser
