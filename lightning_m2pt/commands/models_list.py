"""Runs ``m2pt models list``; its flags and what it is for are in ``parsers``."""

import sys
from collections.abc import Sequence

from lightning_m2pt.commands.parsers.models_list import argument_parser
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.inspection.known_models import language_models


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    argument_parser().parse_args(list(arguments))
    known = language_models()
    width = max(len(model.name) for model in known)
    sys.stdout.write("language models, to be paired with a tower:\n")
    sys.stdout.writelines(f"  {model.name.ljust(width)}  {model.parts}".rstrip() + "\n" for model in known)
    return ExitCode.DONE
