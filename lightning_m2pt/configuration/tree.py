"""A configuration as a tree of plain values: components, and the dotted keys that messages name."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

CLASS_PATH, ARGUMENTS = "class_path", "init_args"
PROMPT_TEXT = "prompt_text"
"""Key of a prompt's file, whose words stand around every question."""
TOP_LEVEL_KEYS = (
    *("seed_everything", "trainer", "model", "data", "benchmarks", PROMPT_TEXT),
    *("save_every_n_steps", "validate_every_n_steps", "output_root"),
)
CLASS_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+|[A-Z]\w*")


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every scalar of a tree with its dotted key; items of a list go by their class's name."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from leaves(inner, key_inside(key, name))
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, key_of_item(key, item))
    else:
        yield key, value


def key_inside(key: str, name: str) -> str:
    """Returns the dotted key of a value inside another; ``init_args`` is left out."""
    return key if name == ARGUMENTS else f"{key}.{name}".lstrip(".")


def key_of_item(key: str, item: Any) -> str:
    """Returns the dotted key of an item of a list: it goes by its class's name, if it has one."""
    name = str(item.get(CLASS_PATH, "")).rpartition(".")[2] if isinstance(item, Mapping) else ""
    return f"{key}.{name}".rstrip(".")


def first_difference(was: Any, now: Any, key: str = "") -> tuple[str, Any, Any]:
    """Returns the dotted key of the first value that differs, and both values; ``init_args`` is left out of keys.

    Args:
        was: One tree of plain values.
        now: Another that is not equal to it.
        key: The dotted key of both.
    """
    if not (isinstance(was, Mapping) and isinstance(now, Mapping)):
        return key, was, now
    name = next(name for name in {**now, **was} if (name in was, was.get(name)) != (name in now, now.get(name)))
    return first_difference(was.get(name), now.get(name), key_inside(key, name))
