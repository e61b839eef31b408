"""YAML as people mean it, and nothing that swells, runs or hangs.

Plain words follow YAML 1.2: ``1e-3`` is a number; ``yes``, ``1:30`` and ``.nan`` are text, which no number accepts.
Aliases, tags and deep nesting are refused before anything is built.
"""

import math
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from lightning_m2pt.errors import BadInputError

MOST_BYTES = 1_000_000
MOST_LEVELS = 40
"""A configuration has eight levels at most; Python's parser calls itself at every one."""

CORE = "tag:yaml.org,2002:"


class StrictLoader(yaml.SafeLoader):
    """Resolves plain words as YAML 1.2's core schema does, without infinities and hexadecimal numbers."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own, empty instead of YAML 1.1's)


for name, pattern, first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)",
        list("-+.0123456789"),
    ),
):
    StrictLoader.add_implicit_resolver(CORE + name, re.compile(f"^(?:{pattern})$"), first)


def refuse_tricks(text: str) -> None:
    """Walks through a text's events without building anything.

    Raises:
        yaml.MarkedYAMLError: At the first alias, tag, or bracket nested too deep, and where the text is no YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=StrictLoader):
        problem = ""
        if isinstance(event, yaml.AliasEvent):
            problem = f"the alias *{event.anchor} is not allowed"
        elif tag := getattr(event, "tag", None):
            problem = f"the tag {tag} is not allowed"
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            problem = f"nested deeper than {MOST_LEVELS} levels" if depth > MOST_LEVELS else ""
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]


def text_of_scalar(node: yaml.Node) -> str:
    """Returns a scalar's text."""
    return str(node.value)


def plain(node: yaml.Node, text_of: Callable[[yaml.Node], str] = text_of_scalar) -> Any:
    """Returns a tree's values; every key is text.

    Args:
        node: The tree.
        text_of: Makes the value of a scalar that is text.
    """
    if isinstance(node, yaml.MappingNode):
        return {key.value: plain(value, text_of) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [plain(item, text_of) for item in node.value]
    if node.tag == CORE + "null":
        return None
    if node.tag == CORE + "bool":
        return node.value.lower() == "true"
    try:
        number = {CORE + "int": int, CORE + "float": float}[node.tag](node.value)
    except (KeyError, ValueError):  # text, or a number of thousands of digits
        return text_of(node)
    return number if math.isfinite(number) else text_of(node)


def value_of(text: str) -> Any:
    """Returns what a text says.

    Raises:
        yaml.YAMLError: If it is no YAML, or more than plain values.
    """
    refuse_tricks(text)
    node = yaml.compose(text, Loader=StrictLoader)
    return None if node is None else plain(node)


def composed(text: str, name: str) -> yaml.Node | None:
    """Returns a text's tree; every node's marks name the file.

    Raises:
        yaml.YAMLError: If it is no YAML.
    """
    loader = StrictLoader(text)
    loader.name = name  # otherwise "<unicode string>"
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def read_mapping(path: Path) -> yaml.MappingNode:
    """Reads a YAML file of keys and plain values as a tree.

    Raises:
        BadInputError: Naming file and line of what is not allowed, and of a key that is written twice.
    """
    node = read_tree(path)
    if not isinstance(node, yaml.MappingNode):
        raise BadInputError("no keys in here", where=str(path), expected="a YAML file of keys and values")
    return node


def read_tree(path: Path) -> yaml.Node | None:
    """Reads a YAML file of plain values as a tree; None if nothing is in it.

    Raises:
        BadInputError: Naming file and line of what is not allowed, and of a key that is written twice.
    """
    try:
        text = read_text(path)
        refuse_tricks(text)
        node = composed(text, str(path))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadInputError(str(error.problem), where=f"{path}:{line}", expected="YAML of plain values") from error
    except yaml.YAMLError as error:
        raise BadInputError(" ".join(str(error).split())[:200], where=str(path), expected="YAML") from error
    if node is not None:
        check_keys(node, path)
    return node


def read_text(path: Path) -> str:
    """Returns a small file's text; what is no ordinary file is never opened, a pipe would wait for ever.

    Raises:
        BadInputError: If it is missing, no file, too large, or not UTF-8.
    """
    problem = ""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            problem = "this is a folder" if stat.S_ISDIR(status.st_mode) else "this is no ordinary file"
        elif status.st_size > MOST_BYTES:
            problem = f"{status.st_size:,} bytes are too many"
        else:
            return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        problem = "not UTF-8 text"
    raise BadInputError(problem, where=str(path), expected=f"a YAML file of at most {MOST_BYTES:,} bytes")


def check_keys(node: yaml.Node, path: Path) -> None:
    """Refuses a key that is written twice, and one that is no word.

    Raises:
        BadInputError: Naming file and lines.
    """
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise BadInputError("a key is a list or a mapping", where=f"{path}:{line}", expected="a word")
            if key.value in lines:
                raise BadInputError(
                    f"also written on line {lines[key.value]}",
                    where=f"{path}:{line}: {key.value}",
                    expected="every key once",
                )
            lines[key.value] = line
            check_keys(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            check_keys(item, path)
