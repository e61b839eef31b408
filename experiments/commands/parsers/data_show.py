"""``m2pt data show``: what the pictures, questions and right answers of a set look like.

Reads a set through its data module and writes a contact sheet: pictures spread over the set (of a tuning set the
first), enlarged, with their questions and right answers below. With --rendered, samples as the model reads them: in the
terminal and as a page, the template's text with special tokens, what is supervised coloured. Loads no weights.
"""

import argparse
from pathlib import Path

from experiments.commands.parsers.own_file import FILE_WORDS, FileParser, add_file_flags

DEFAULT_CONFIG = str(Path(__file__).resolve().parents[2] / "m2pt_base.yaml")


TUNING_SET, OTHER_TUNING_SET = "vision_flan", "tuning"


EVERY_SET = "all"


PICTURES_OF_ONE_SET = 12


PICTURES_OF_EVERY_SET = 4


QUESTIONS_OF_A_PICTURE = 3


SAMPLES_OF_ONE_SET = 5


EXAMPLES = f"""\
{FILE_WORDS}
It is shown as with --rendered.

The set is named as in the experiment's list of benchmarks; {TUNING_SET} is the tuning set, {OTHER_TUNING_SET} one of
another class (its first training samples, each with all its turns); {EVERY_SET} puts a row of every set on one sheet.
A picture that is asked several questions appears once, with up to {QUESTIONS_OF_A_PICTURE} of them. Any key of the
experiment can be given too.

examples:
  m2pt data show --set mme
  m2pt data show --set {TUNING_SET} --count 24
  m2pt data show --config experiments/m2pt_vicuna7b.yaml --set pope --output sheet.png
  m2pt data show --set {EVERY_SET} --output every_set.png
  m2pt data show --set {TUNING_SET} --rendered
  m2pt data show mine.json --data.image_root pictures --template native
"""


def argument_parser() -> FileParser:
    """Returns the flags that are not part of an experiment."""
    parser = FileParser(
        prog="m2pt data show",
        usage="m2pt data show [FILE | --set NAME] [--rendered] [--config FILE] [--count N] [experiment keys]",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--set", metavar="NAME", help=f"a set of the experiment, or {EVERY_SET}")
    add_file_flags(parser)
    parser.add_argument(
        "--count",
        type=int,
        metavar="N",
        help=f"pictures to show (default: {PICTURES_OF_ONE_SET}; {PICTURES_OF_EVERY_SET} of each with {EVERY_SET}; "
        f"{SAMPLES_OF_ONE_SET} samples with --rendered)",
    )
    parser.add_argument(
        "--rendered", action="store_true", help="show samples as the model reads them, supervised text coloured"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the contact sheet, .png, or the page of --rendered, .html (default: outputs/data_show/NAME)",
    )
    parser.add_argument(
        "-c", "--config", action="append", metavar="FILE", help=f"the experiment (default: {DEFAULT_CONFIG})"
    )
    return parser
