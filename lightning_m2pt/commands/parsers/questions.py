"""Flags that say which questions a run's model is asked: those of ``attention`` and ``attribution``."""

import argparse
from pathlib import Path

from lightning_m2pt.commands.parsers.tuned import add_tuned_flags

QUESTIONS_BY_DEFAULT = 3
MORE_FLAGS = """
--model.KEY VALUE sets a key of the run's model; with questions of its sets, --KEY VALUE sets any key of the run.
"""


def add_question_flags(parser: argparse.ArgumentParser, without_sample: str) -> None:
    """Adds the flags that say which questions are meant.

    Args:
        parser: The verb's parser.
        without_sample: What the verb does without any of them.
    """
    add_tuned_flags(parser, "a tuned run's folder", required=True)
    parser.add_argument(
        "--sample",
        nargs="+",
        default=[],
        metavar="SET[:ID]",
        help=f"questions of the run's sets, such as vsr:test/1 ({without_sample})",
    )
    parser.add_argument("--image", type=Path, metavar="FILE", help="in place of --sample: a picture of your own")
    parser.add_argument("--question", metavar="TEXT", help="the question about --image")
    parser.add_argument("--data.root", dest="data_root", type=Path, metavar="DIR", help="sets are in DIR/<name>")
