"""``m2pt report-page``: one HTML page with the paper's tables and figures from all that has run.

Beside the page stand the pieces for a paper: every figure as PDF and PNG at the width of a column and of a page, with
its data as CSV, and every table as LaTeX (booktabs), Markdown and CSV. Read are prediction files and run folders alone,
no model; the numbers are those of `m2pt report`. What has not run is left out and named.
"""

import argparse
from pathlib import Path

from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the verb's flags."""
    parser = VerbParser(
        prog="m2pt report-page", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs",
        type=Path,
        nargs="*",
        default=[Path("outputs")],
        metavar="DIR",
        help="folders of runs (default: outputs)",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of the report (default: report in DIR)")
    parser.add_argument(
        "--cases", type=int, default=1, metavar="N", help="won and lost questions of every set, at most (default: 1)"
    )
    return parser
