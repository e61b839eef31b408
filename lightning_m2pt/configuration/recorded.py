"""Reads the configuration that a run keeps.

It is what was resolved once: no parts, no other settings to ask for, absolute paths or names of places. Earlier
versions kept paths as they were written; the embedded weights among them are found where they are today.
"""

import re
from pathlib import Path
from typing import Any

from lightning_m2pt.configuration.interpolation import interpolated
from lightning_m2pt.configuration.paths import EMBEDDED, embedded_names
from lightning_m2pt.configuration.strict_yaml import plain, read_mapping

FORMER_FOLDER = re.compile(r"(?:experiments/backbones|lightning_m2pt/embedded)/(\w+)/(.+)")
"""How a checkout's files named the embedded weights before they went by their name."""


def recorded_configuration(path: Path) -> dict[str, Any]:
    """Returns a run's configuration as plain values, every name of a place replaced by the place.

    Relative paths that are left are those of earlier versions: they stand in the working directory.

    Raises:
        BadInputError: If the file is no YAML of plain values, or asks for something else.
    """
    return interpolated(recorded_tree(path))


def recorded_tree(path: Path) -> dict[str, Any]:
    """Returns a run's configuration as it stands there, former names of embedded weights replaced.

    Raises:
        BadInputError: If the file is no YAML of plain values.
    """
    tree: dict[str, Any] = plain(read_mapping(path))
    if isinstance(tree.get("model"), dict):
        tree["model"] = with_present_names(tree["model"], embedded_names())
    return tree


def with_present_names(value: Any, names: list[str]) -> Any:
    """Returns a tree in which former names of embedded files are their absolute paths."""
    if isinstance(value, dict):
        return {key: with_present_names(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_present_names(inner, names) for inner in value]
    former = FORMER_FOLDER.fullmatch(value) if isinstance(value, str) else None
    return str(EMBEDDED / former[1] / former[2]) if former is not None and former[1] in names else value
