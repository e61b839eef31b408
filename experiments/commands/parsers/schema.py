"""``m2pt schema``: the JSON schema (draft 2020-12) of experiment files, for editors.

Made from the signatures of this project's classes and of Lightning's Trainer. In VS Code's YAML extension:
"yaml.schemas": {"experiment.schema.json": "experiments/*.yaml"}. A file may begin with the line
# yaml-language-server: $schema=../experiment.schema.json instead. What a schema cannot say (classes of your own, what
only a constructor refuses) is left to `m2pt check`.
"""

import argparse
from pathlib import Path

from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the verb's flags."""
    parser = VerbParser(prog="m2pt schema", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there instead of printing")
    return parser
