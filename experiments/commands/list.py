"""Runs ``m2pt list``; its flags and what it is for are in ``parsers``."""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.commands.parsers.list import argument_parser
from experiments.configuration import catalogue
from experiments.sweep.jobs import DEFAULT_OUTPUT_ROOT
from lightning_m2pt.errors import BadInputError, ExitCode


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own = argument_parser().parse_args(list(arguments))
    if own.output_root is not None and own.kind != "runs":
        raise BadInputError(
            f"{own.kind} are not in a folder of runs", where="command line: --output_root", expected="m2pt list runs"
        )
    found = entries_of_runs(own.output_root) if own.kind == "runs" else entries_of(own.kind)
    width = max((len(name) for name, _ in found), default=0)
    sys.stdout.writelines(f"{name.ljust(width)}  {about}".rstrip() + "\n" for name, about in found)
    return ExitCode.DONE


def entries_of_runs(root: Path | None) -> list[tuple[str, str]]:
    """Returns the folders of runs below a folder, each with a line about it; says so if there are none.

    Args:
        root: The folder; None for where runs go unless told otherwise, which need not be there yet.

    Raises:
        BadInputError: If the folder is named and not there.
    """
    from lightning_m2pt.runs.output_folder import found_runs

    place = DEFAULT_OUTPUT_ROOT if root is None else root
    found = list(found_runs(place)) if root is not None or place.is_dir() else []
    if not found:
        sys.stderr.write(f"no run in {place}; --output_root DIR looks elsewhere\n")
    return [(each.folder.as_posix(), each.about) for each in found]


def entries_of(kind: str) -> list[tuple[str, str]]:
    """Returns the names of a kind, each with a line about it."""
    if kind == "rules":
        from lightning_m2pt.metrics.rules import RULES

        return [(name, rule.about) for name, rule in RULES.items()]
    listed = {
        "experiments": catalogue.experiments,
        "methods": catalogue.methods,
        "sets": catalogue.sets,
        "backbones": lambda: [*catalogue.backbones(), *catalogue.backbone_files()],
        "sweeps": catalogue.sweeps,
    }
    return [(entry.name, entry.about) for entry in listed[kind]()]
