"""``m2pt attribution``: which patches a tuned run's answer hangs on, and a check of that.

Attributes the probability of a token of the greedy answer to the picture's patches with captum, then deletes patches:
the most attributed first must lower the probability sooner than random orders do. Writes a picture and all numbers into
RUN/figures/attribution.
"""

import argparse
from pathlib import Path

from lightning_m2pt.commands.parsers.questions import MORE_FLAGS, add_question_flags
from lightning_m2pt.system.console import VerbParser

METHODS = ("occlusion", "integrated_gradients")
"""As ``AttributionMethod``, whose module needs torch."""


def argument_parser() -> VerbParser:
    """Returns the verb's own flags."""
    parser = VerbParser(
        prog="m2pt attribution",
        description=f"{__doc__}{MORE_FLAGS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        takes_settings=True,
    )
    add_question_flags(parser, "required without --image")
    parser.add_argument("--method", choices=METHODS, default="occlusion", help="default: %(default)s")
    parser.add_argument(
        "--answer-token", type=int, default=0, metavar="N", help="which token of the answer, from 0 (default)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder (of a run: RUN/figures/attribution)",
    )
    return parser
