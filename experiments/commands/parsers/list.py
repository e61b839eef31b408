"""``m2pt list``: what comes with the project, one line each: experiments, methods, sets, and so on; or your runs.

  m2pt list experiments      what --config and EXP take; files in experiments/
  m2pt list methods          classes for model.method
  m2pt list sets             classes for data, and for benchmarks
  m2pt list backbones        classes for model.backbone, and files for BACKBONE and --backbone
  m2pt list rules            what `m2pt score --rule` takes
  m2pt list sweeps           what `m2pt sweep run` takes
  m2pt list runs             what --run takes: folders in outputs/, or in --output_root, and where they stand

Everything is read from the files themselves: what you add is listed, too.
"""

import argparse
from pathlib import Path

from lightning_m2pt.system.console import VerbParser

KINDS = ("experiments", "methods", "sets", "backbones", "rules", "sweeps", "runs")


def argument_parser() -> VerbParser:
    """Returns the verb's flags."""
    parser = VerbParser(prog="m2pt list", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS, help="what to list")
    parser.add_argument("--output_root", type=Path, metavar="DIR", help="of runs: where they are (default: outputs)")
    return parser
