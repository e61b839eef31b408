"""Reads values out of a composed YAML tree, so that every complaint names file and line."""

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from lightning_m2pt.configuration.strict_yaml import plain
from lightning_m2pt.errors import BadInputError


def keys_of(node: yaml.Node, path: Path, accepted: Sequence[str], required: Sequence[str]) -> dict[str, yaml.Node]:
    """Returns a mapping's values by key.

    Raises:
        BadInputError: If a key is unknown or missing.
    """
    found = {}
    for key, value in pairs_of(node, path):
        if key.value not in accepted:
            near = difflib.get_close_matches(key.value, accepted, n=1)
            raise BadInputError(
                "unknown key",
                where=f"{place(path, key)}: {key.value}",
                expected=", ".join(accepted),
                hint=f"did you mean {near[0]}?" if near else "",
            )
        found[str(key.value)] = value
    for name in required:
        if name not in found:
            raise BadInputError("this key is missing", where=f"{place(path, node)}: {name}", expected="a value")
    return found


def pairs_of(node: yaml.Node, path: Path) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    """Returns a mapping's keys and values."""
    if not isinstance(node, yaml.MappingNode):
        raise BadInputError("this is no mapping", where=place(path, node), expected="key: value")
    return list(node.value)


def items_of(node: yaml.Node, path: Path) -> list[yaml.Node]:
    """Returns a list's items; there is at least one."""
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise BadInputError("this is no list with items", where=place(path, node), expected="[one, or, more]")
    return list(node.value)


def text_of(node: yaml.Node, path: Path) -> str:
    """Returns a text."""
    if not isinstance(node, yaml.ScalarNode) or not node.value:
        raise BadInputError("this is no text", where=place(path, node), expected="one word or several")
    return str(node.value)


def word_of(node: yaml.Node, path: Path) -> str:
    """Returns a value as a command-line word; numbers keep the digits they are written with."""
    return str(node.value) or "null" if isinstance(node, yaml.ScalarNode) else json.dumps(plain(node))


def whole_number(node: yaml.Node, path: Path) -> int:
    """Returns a number of 0 or more."""
    if not isinstance(node, yaml.ScalarNode) or not re.fullmatch(r"\d{1,9}", node.value):
        raise BadInputError("this is no whole number", where=place(path, node), expected="0 or more")
    return int(node.value)


def number_of(node: yaml.Node, path: Path) -> float:
    """Returns a finite number; ``1/3`` is one, too."""
    text = node.value if isinstance(node, yaml.ScalarNode) else ""
    match = re.fullmatch(r"(\d+\.?\d*(?:[eE][+-]?\d+)?)(?:/([1-9]\d*))?", text)
    if match is None:
        raise BadInputError(f"{text!r:.30} is no number", where=place(path, node), expected="such as 0.01, 1e-3, 1/3")
    return float(match.group(1)) / int(match.group(2) or 1)


def place(path: Path, node: yaml.Node) -> str:
    """Returns where a node stands: ``FILE:LINE``."""
    return f"{path}:{node.start_mark.line + 1}"
