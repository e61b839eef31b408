"""``m2pt attention``: where a tuned run's model looks, beside the frozen model, for chosen questions of its sets.

Writes into RUN/figures/attention: for every question pictures (activation of all columns by layer, patch attention laid
over the picture), all probabilities as safetensors with a JSON file of their names, and one page, attention.html, on
which layer, head and token are picked.
"""

import argparse
from pathlib import Path

from lightning_m2pt.commands.parsers.questions import MORE_FLAGS, QUESTIONS_BY_DEFAULT, add_question_flags
from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the verb's own flags."""
    parser = VerbParser(
        prog="m2pt attention",
        description=f"{__doc__}{MORE_FLAGS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        takes_settings=True,
    )
    add_question_flags(parser, f"default: the first {QUESTIONS_BY_DEFAULT} of the run's first set")
    parser.add_argument("--layer", nargs="+", type=int, metavar="N", help="layers to keep (default: all)")
    parser.add_argument(
        "--token",
        nargs="+",
        default=[],
        metavar="WORD",
        help="question or answer tokens whose patch attention is laid over the picture (default: the rows that chose "
        "the answer's tokens)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder (of a run: RUN/figures/attention)",
    )
    return parser
