"""Flags that say which tuned model answers at the terminal, and how: those of ``ask`` and ``chat``."""

import argparse

from lightning_m2pt.commands.parsers.counts import positive

DTYPES = ("float32", "bfloat16", "float64")
QUANTIZATIONS = ("nf4", "int8")
ANSWER_TOKENS = 64


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the source, and where and how its model runs."""
    parser.add_argument(
        "source", metavar="RUN", help="a run's folder, an adapter's folder, or user/name of the hub, fetched before"
    )
    of_model = parser.add_argument_group("the model")
    of_model.add_argument("--revision", metavar="R", help="branch, tag or commit of an adapter of the hub")
    of_model.add_argument(
        "--base",
        metavar="BASE",
        help="where the frozen base is: an embedded one's name, a whole model's folder, hub:OWNER/NAME "
        "(default: what the adapter says)",
    )
    of_model.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: cuda where there is one)")
    of_model.add_argument(
        "--dtype", choices=DTYPES, help="type of the frozen weights (default: the one it was tuned on)"
    )
    of_model.add_argument(
        "--quantization", choices=QUANTIZATIONS, help="how they are packed (default: as it was tuned on)"
    )


def add_answer_flags(parser: argparse.ArgumentParser) -> None:
    """Adds what is common to all answers."""
    parser.add_argument("--compare", action="store_true", help="the frozen model's answer beside")
    parser.add_argument(
        "--max-new-tokens",
        type=positive,
        default=ANSWER_TOKENS,
        metavar="N",
        help="longest answer, its end token included (default: %(default)s)",
    )
    parser.add_argument("--no-picture", action="store_true", help="show no picture in the terminal")
