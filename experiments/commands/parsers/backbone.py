"""The ``m2pt backbone`` command: rebuilds an embedded backbone from nothing, or the projector of the real pair."""

from pathlib import Path

from lightning_m2pt.system.console import VerbParser

NAMES = ("testbed", "testbed_patch12", "smollm2_dinov2")
"""As ``RECIPES`` and ``ALIGNMENTS``, whose modules need scikit-learn."""
DEFAULT_WORK = Path("outputs") / "backbone"


def argument_parser() -> VerbParser:
    """Returns the command's argument parser."""
    parser = VerbParser(
        prog="m2pt backbone",
        description="Pretrain an embedded testbed backbone and write it as ordinary files; or align the projector of "
        "smollm2_dinov2, a pair that `m2pt models fetch` brings. An interrupted call goes on where it stopped; "
        "finished stages are not repeated.",
    )
    parser.add_argument("--name", choices=NAMES, default=NAMES[0], help="which of the recipes (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=None, help="folder of the files (default: lightning_m2pt/embedded/NAME)"
    )
    parser.add_argument(
        "--work", type=Path, default=DEFAULT_WORK, help="checkpoints are in WORK/NAME (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=None, help="(default: the recipe's own)")
    parser.add_argument(
        "--shortened",
        action="store_true",
        help="a few dozen steps of every stage, about a minute; writes files only where --output is given",
    )
    return parser
