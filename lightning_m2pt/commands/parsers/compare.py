"""``m2pt compare``: two runs on the same questions, set by set: difference, paired interval, McNemar's test, verdict.

The verdict follows the paired 95% bootstrap interval of the difference; McNemar's test looks at the questions that only
one of the two answered rightly, counts each once, and takes them as independent of each other; MME's points weigh them
by subtask and picture. A folder may hold several seeds of one experiment: then means are compared, and seeds are
resampled too.
"""

import argparse
from pathlib import Path

from lightning_m2pt.commands.parsers.report import add_choices
from lightning_m2pt.report.tables.formats import FORMAT_NAMES, TERMINAL
from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the verb's flags."""
    parser = VerbParser(prog="m2pt compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("first", "second"):
        parser.add_argument(name, type=Path, metavar=f"RUN_{name.upper()}", help="a folder as of `m2pt report`")
    parser.add_argument("--format", choices=FORMAT_NAMES, default=TERMINAL)
    add_choices(parser)
    return parser
