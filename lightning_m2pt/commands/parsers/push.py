"""``m2pt push``: sends a run's adapter to a model repository of the Hugging Face hub.

Without ``--yes`` nothing is sent and no network is used: the files, their sizes, the card and what its readers will
need are listed, and whatever should not leave this machine is refused by file and line: paths of this machine, tokens,
and the names of this user, this machine and of data sets of your own.

Sent are the adapter's configuration, its tensors and its card, in one commit: nobody sees half an adapter. A push that
was cut off is given again; what was sent whole is not sent again. Another adapter, or anything else, that is there
already is replaced only with ``--replace``, and stays under its own commit.

The token is the one of ``hf auth login`` or HF_TOKEN; HF_ENDPOINT names another hub.
"""

import argparse
from pathlib import Path

from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the command's flags."""
    parser = VerbParser(
        prog="m2pt push",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or an adapter's")
    parser.add_argument("name", metavar="OWNER/NAME", help="the repository; it is made if it is not there")
    parser.add_argument("--license", metavar="ID", help="the licence's short name; needed unless the card names one")
    parser.add_argument("--private", action="store_true", help="only its owner sees the new repository")
    parser.add_argument("--revision", metavar="BRANCH", default="main", help="the branch (default: main)")
    parser.add_argument("--yes", action="store_true", help="send it")
    parser.add_argument("--replace", action="store_true", help="even if something else is there")
    parser.add_argument(
        "--name-ok",
        action="append",
        default=[],
        metavar="NAME",
        help="a name of a set of your own, of this user or of this machine that may be sent; may be repeated",
    )
    return parser
