"""Flags that say which tuned model is meant: a run, or an adapter by itself on the base of an experiment."""

import argparse
from pathlib import Path

from lightning_m2pt.errors import BadInputError


def add_tuned_flags(parser: argparse.ArgumentParser, of_run: str, *, required: bool = False) -> None:
    """Adds ``--run`` and ``--adapter``, of which at most one is given.

    Args:
        parser: The verb's parser.
        of_run: What a run is here, for the help.
        required: Whether one of them must be given.
    """
    tuned = parser.add_mutually_exclusive_group(required=required)
    tuned.add_argument("--run", type=Path, metavar="DIR", help=of_run)
    tuned.add_argument(
        "--adapter",
        type=Path,
        metavar="DIR",
        help="in place of --run: an adapter's folder; --config FILE names sets, and its base where it does not",
    )


def add_output_flag(parser: argparse.ArgumentParser) -> None:
    """Adds ``--output`` to a verb whose answers of a run have their place."""
    parser.add_argument("--output", type=Path, metavar="DIR", help="with --adapter: where answers and scores go")


def check_output(own: argparse.Namespace) -> None:
    """Looks whether an adapter's results have a place, and those of a run no other than its own.

    Raises:
        BadInputError: If not.
    """
    if own.adapter is not None and own.output is None:
        raise BadInputError(
            "an adapter has no folder for results", where="command line: --adapter", expected="--output DIR"
        )
    if own.adapter is None and own.output is not None:
        raise BadInputError(
            "answers stand in the run's own folder", where="command line: --output", expected="--output with --adapter"
        )


def add_source(parser: argparse.ArgumentParser) -> None:
    """Adds what verbs need that make something of others' form of a tuned model: which one, where to, what is left out.

    Args:
        parser: The verb's parser.
    """
    parser.add_argument("source", type=Path, metavar="RUN", help="a tuned run's folder, or an adapter's")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder that is made")
    parser.add_argument(
        "--leave-out", action="append", default=[], metavar="PART", help="a part that is not written; may be repeated"
    )
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="with an adapter: an experiment on its base"
    )
