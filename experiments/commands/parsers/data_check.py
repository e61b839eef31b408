"""``m2pt data check``: reads a set to its end and says what is wrong in it, what it holds, and what it shares.

All mistakes with their places; numbers of samples, turns and pictures; how long texts and pictures are beside what the
model takes; what is there twice; which pictures are in an evaluation set that lies on this machine, re-encoded, smaller
or brighter ones too. Loads no weights. Exit code 2 where something is wrong, and 0 otherwise, whatever is shared.
"""

import argparse
from pathlib import Path

from experiments.commands.parsers.data_show import DEFAULT_CONFIG
from experiments.commands.parsers.own_file import FILE_WORDS, FileParser, add_file_flags

NEAR, EXACT, NONE = "near", "exact", "none"
TEXT, JSON = "text", "json"
EXAMPLES = f"""\
{FILE_WORDS}

Without FILE the tuning set of the experiment is checked. The evaluation sets are those of the experiment, and those
whose folders lie in the folder of all data.

examples:
  m2pt data check mine.json --data.image_root pictures
  m2pt data check test.csv --rule exact --config experiments/m2pt_vicuna7b.yaml --template native
  m2pt data check --config experiments/m2pt_base.yaml
  m2pt data check --config experiments/m2pt_vicuna7b.yaml --decode --overlap exact
  m2pt data check --config mine.yaml --format json
"""


def argument_parser() -> FileParser:
    """Returns the flags that are not part of an experiment."""
    parser = FileParser(
        prog="m2pt data check",
        usage="m2pt data check [FILE] [--config FILE] [--decode] [--overlap near|exact|none] [experiment keys]",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-c", "--config", action="append", metavar="FILE", help=f"the experiment (default: {DEFAULT_CONFIG})"
    )
    add_file_flags(parser)
    parser.add_argument("--decode", action="store_true", help="decode every picture in whole, to find the damaged ones")
    parser.add_argument(
        "--overlap",
        choices=(NEAR, EXACT, NONE),
        default=NEAR,
        help="how pictures are compared: by content and looks (1 ms a picture), by content alone, or not at all",
    )
    parser.add_argument(
        "--sets", type=Path, metavar="DIR", help="folder of the evaluation sets' folders (default: M2PT_DATA, or data)"
    )
    parser.add_argument("--format", choices=(TEXT, JSON), default=TEXT, help="for people, or one JSON object")
    return parser
