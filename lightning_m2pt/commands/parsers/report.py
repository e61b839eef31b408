"""``m2pt report``: scores of evaluated runs as a table for the terminal, Markdown, LaTeX, spreadsheets or programs.

Scores the prediction files anew; score files are not read. Runs of one experiment with different seeds become one row:
mean, deviation, number.
"""

import argparse
from pathlib import Path

from lightning_m2pt.report.tables.formats import FORMAT_NAMES, TERMINAL
from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the verb's flags."""
    parser = VerbParser(prog="m2pt report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="a run's folder, one of its evaluations, outputs/frozen/HASH, or a folder of these",
    )
    parser.add_argument("--format", choices=FORMAT_NAMES, default=TERMINAL)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there instead of printing")
    parser.add_argument("--details", action="store_true", help="MME and other sets per subtask, POPE per split")
    parser.add_argument(
        "--against",
        metavar="paper|RUN",
        help="the published numbers, or another run: differences, marked where they are inside the noise",
    )
    add_choices(parser)
    return parser


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that choose sets and rules."""
    parser.add_argument("--sets", nargs="+", default=[], metavar="SET", help="only these sets")
    parser.add_argument(
        "--rule",
        nargs="+",
        default=[],
        metavar="RULE|SET=RULE",
        help="a scoring rule for all sets, or for one (`m2pt score --help` lists them); without it each file's default",
    )
