"""The ``m2pt data testbed`` command: renders the testbed's data in the official on-disk formats."""

from pathlib import Path

from lightning_m2pt.system.console import VerbParser

DEFAULT_ROOT = Path(__file__).resolve().parents[3] / "data" / "testbed"


def argument_parser() -> VerbParser:
    """Returns the command's argument parser."""
    parser = VerbParser(
        prog="m2pt data testbed",
        description="Render the testbed's tuning and evaluation sets in the official formats. What is complete is "
        "left as it is.",
    )
    parser.add_argument("--root", type=Path, default=DEFAULT_ROOT, help="folder to write to (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--prompting",
        action="store_true",
        help="render the training splits for prompts in pixel space (2,000 pictures each of CIFAR-10, MNIST, POPE and "
        "counting) into ROOT/prompting, and nothing else",
    )
    parser.add_argument("--force", action="store_true", help="render again, also over another seed's data")
    return parser
