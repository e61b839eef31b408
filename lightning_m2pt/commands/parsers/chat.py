"""``m2pt chat``: talk with a tuned model, about a picture or about none.

Write a question and press Enter. A turn computes its own words alone: the conversation so far and the picture are kept.
Where standard input is no terminal each of its lines is a question, and the answers are written, a line each.
"""

import argparse

from lightning_m2pt.commands.parsers.answering_model import add_answer_flags, add_model_flags
from lightning_m2pt.system.console import VerbParser

COMMANDS = """  /picture FILE   show another picture; the conversation begins anew
  /reset          forget the conversation; the picture stays
  /help           say these again
  /quit           end, as Ctrl-D does
  Ctrl-C          end an answer; a second one ends the chat
"""
EXAMPLES = """examples:
  m2pt chat outputs/m2pt_base/RUN cat.jpg
  m2pt chat my_adapter --base models/llava-1.5-7b-hf --compare
  m2pt chat outputs/m2pt_base/RUN cat.jpg < questions.txt > answers.txt
"""


def argument_parser() -> VerbParser:
    """Returns the verb's flags."""
    parser = VerbParser(
        prog="m2pt chat",
        description=f"{__doc__}\n{COMMANDS}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_flags(parser)
    parser.add_argument("picture", nargs="?", metavar="PICTURE", help="what it is about (default: nothing is shown)")
    add_answer_flags(parser)
    return parser
