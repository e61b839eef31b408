"""``m2pt prompts``: what a tuned run's prompts are near to.

Shows the words nearest to the textual prompts of each layer (cosine against the token embedding), and writes into
RUN/figures/prompts: prompts.json with all numbers, and a picture of how alike the layers' prompts are and of how long
rows were over training. ``--score-words`` measures on the validation split of the tuned tasks what these words are
worth in the place of the prompts, as rows and as text, and writes words.json; it needs a checkout. Of a prompt in
pixels: pixel_prompt.png, and with ``--picture FILE`` that picture with the prompt in it, as the tower reads it.
``--model.KEY VALUE`` sets a key of the run's model; ``--allow-import PACKAGE`` opens a package.
"""

import argparse
from pathlib import Path

from lightning_m2pt.commands.parsers.tuned import add_tuned_flags
from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the verb's own flags."""
    parser = VerbParser(
        prog="m2pt prompts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        takes_settings=True,
    )
    add_tuned_flags(parser, "a tuned run's folder", required=True)
    parser.add_argument("--words", type=int, default=5, metavar="N", help="words a row (default: %(default)s)")
    parser.add_argument(
        "--score-words",
        action="store_true",
        help="measure loss and answers with the words nearest to layer 0's rows in the prompts' place",
    )
    parser.add_argument(
        "--samples", type=int, default=0, metavar="N", help="with --score-words: samples (default: all)"
    )
    parser.add_argument(
        "--sample-seed", type=int, default=0, metavar="S", help="decides which samples, and their order"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="a picture to show with a prompt in pixels")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder (of a run: RUN/figures/prompts)",
    )
    return parser
