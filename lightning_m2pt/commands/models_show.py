"""Runs ``m2pt models show``; its flags and what it is for are in ``parsers``."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_m2pt.backbones.hub_ids import cached_folder, model_folder
from lightning_m2pt.commands.parsers.models_show import argument_parser
from lightning_m2pt.configuration.paths import HUB
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.inspection.model_report import model_report
from lightning_m2pt.system.collector import without_collector
from lightning_m2pt.system.console import say

KEY = "command line"
NAMES = {
    "model_type": "",
    "key_value_heads": "heads of keys and values",
    "head_width": "wide heads",
    "vocabulary": "tokens",
}
"""What people read for a key; others are their own name."""


@without_collector()
def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = argument_parser().parse_args(list(arguments))
    folder = folder_named(options.model, options.revision)
    found = {"model": str(folder), **model_report(folder)}
    if options.json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return ExitCode.DONE
    for line in lines_of(found):
        say(line)
    return ExitCode.DONE


def folder_named(model: str, revision: str | None) -> Path:
    """Returns the folder of a model, which may be named without ``hub:`` where no such folder is.

    Raises:
        BadInputError: If there is none.
    """
    if model.startswith(HUB) or Path(model).exists():
        return model_folder(model, revision, KEY)
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return cached_folder(model, revision, KEY)
    return model_folder(model, revision, KEY)


def lines_of(found: Mapping[str, Any]) -> Iterator[str]:
    """Yields what people read, a line for each thing."""
    yield row("model", found["model"])
    yield row("is", f"{found['architecture']}, a {found['kind']}")
    sizes = found["language"]
    listed = (f"{value:,} {NAMES.get(key, key)}" for key, value in sizes.items() if key != "model_type")
    yield row("language", f"{sizes['model_type']}: {', '.join(listed)}")
    parts = [f"{value:,} {name}" for name, value in found["parameters"].items() if name != "total"]
    yield row("parameters", f"{found['parameters']['total']:,} ({', '.join(parts)})")
    yield row("licence", found["licence"] or "neither README.md nor a LICENSE file names one")


def row(name: str, text: str) -> str:
    """Returns a line with its name in front."""
    return f"{name:<12} {text}"
