"""``m2pt sweep``: many runs from one file, a few at a time; what is complete is never done again.

  m2pt sweep list                       the sweeps that come with the project
  m2pt sweep run ablation --dry-run     the command lines, one a line: what a SLURM array would take
  m2pt sweep run ablation --jobs 2      run them, two at a time, one thread each
  m2pt sweep status ablation            where it stands, from another terminal
  m2pt sweep transfers prompt_transfer  train prompts in pixels, use each on every base, show gains and intervals

A cell is an ordinary `m2pt train`, its run an ordinary folder. Stop a sweep as you like (Ctrl-C lets running cells
save): the same command goes on where it stopped, tries failed cells again and skips complete ones. Two sweeps at once
share the work. Everything the cells write is in outputs/sweeps/NAME/logs. docs/sweeps.md tells how to write a file.
"""

import argparse
from pathlib import Path

from experiments.sweep.jobs import DEFAULT_OUTPUT_ROOT
from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the verb's flags."""
    parser = VerbParser(prog="m2pt sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", metavar="run | status | transfers | list", required=True)
    run = actions.add_parser("run", help="run what is not complete", description="Run what is not complete.")
    status = actions.add_parser("status", help="say where a sweep stands; runs nothing")
    transfers = actions.add_parser(
        "transfers",
        help="run a sweep with a section `transfer`, then use every prompt on every base",
        description="Run what is not complete of a sweep with a section `transfer`, seed after seed: trainings, then "
        "every prompt on every base. Then show gains, shares of the ceiling and what pictures lose.",
    )
    for action in (run, status, transfers):
        action.add_argument("file", metavar="FILE", help="a sweep's YAML file, or the name of a shipped one")
        action.add_argument("--output_root", type=Path, default=DEFAULT_OUTPUT_ROOT, metavar="DIR")
        action.add_argument(
            "--allow-import", dest="opened", action="append", default=[], metavar="PACKAGE", help="as of m2pt train"
        )
        action.add_argument("--no-search", action="store_true", help="take the learning rates of the files")
    for action in (run, status):
        action.add_argument("--backbone", default="", metavar="NAME", help="another file of experiments/backbones")
    transfers.set_defaults(backbone="")  # the file names the bases
    for action in (run, transfers):
        action.add_argument("--jobs", type=int, default=1, metavar="N", help="cells at a time (default: %(default)s)")
    transfers.add_argument("--table-only", action="store_true", help="show the table of what is there and run nothing")
    run.add_argument("--dry-run", action="store_true", help="print the cells' command lines and run nothing")
    run.add_argument("--search-only", action="store_true", help="search the learning rates, then stop")
    actions.add_parser("list", help="the sweeps that come with the project")
    return parser
