"""Runs ``m2pt models list``; its flags and what it is for are in ``parsers``."""

import sys
from collections.abc import Sequence

from lightning_m2pt.commands.parsers.models_list import argument_parser
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.inspection.known_models import language_models, towers, whole_models


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    argument_parser().parse_args(list(arguments))
    lists = {
        "whole vision-language models, by their towers": whole_models(),
        "language models, in them or to be paired with a tower, by what they have beyond Llama": language_models(),
        "towers, by the rows that they have": [tower for tower in towers() if tower.parts],
    }
    width = max(len(model.name) for known in lists.values() for model in known)
    for title, known in lists.items():
        sys.stdout.write(f"{title}:\n")
        sys.stdout.writelines(f"  {model.name.ljust(width)}  {model.parts}".rstrip() + "\n" for model in known)
    return ExitCode.DONE
