"""``m2pt ask``: ask a tuned model about a picture.

On a terminal the picture is shown, and the answer appears as it grows; anywhere else the answers alone are written, a
line each. Several questions about one picture compute the picture once. With --candidates the model chooses: every
candidate gets its log-probability, and the likeliest is the answer.
"""

import argparse

from lightning_m2pt.commands.parsers.answering_model import add_answer_flags, add_model_flags
from lightning_m2pt.system.console import VerbParser

EXAMPLES = """examples:
  m2pt ask outputs/m2pt_base/RUN cat.jpg "What is in the picture?"
  m2pt ask outputs/m2pt_base/RUN cat.jpg "Is it a cat?" "What color is it?" --compare
  m2pt ask my_adapter cat.jpg "Is it a cat?" --candidates yes,no --base models/llava-1.5-7b-hf
  m2pt ask user/name cat.jpg "What is it?" --json | jq -r .answer
"""


def argument_parser() -> VerbParser:
    """Returns the verb's flags."""
    parser = VerbParser(
        prog="m2pt ask", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_flags(parser)
    parser.add_argument("picture", metavar="PICTURE", help="a file: JPEG, PNG, WebP, GIF, BMP, TIFF, PPM")
    parser.add_argument("questions", nargs="+", metavar="QUESTION", help="a question, in quotation marks")
    parser.add_argument("--candidates", metavar="A,B,...", help="two or more answers to choose from, between commas")
    parser.add_argument("--json", action="store_true", help="write one JSON object a question")
    add_answer_flags(parser)
    return parser
