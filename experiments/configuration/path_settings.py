"""Finds the settings of a tree that are paths, and makes them absolute before anything is built of them."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.configuration.catalogue import CHECKOUT
from experiments.configuration.schema import GROUPS, OUR_PACKAGES
from experiments.configuration.values import PLACEHOLDER
from lightning_m2pt.configuration.allowed_imports import ALLOWED, is_allowed
from lightning_m2pt.configuration.paths import (
    HUB,
    FileText,
    absolute,
    beside_its_file,
    file_arguments,
    hashed,
    is_yaml,
    path_arguments,
    portable,
)
from lightning_m2pt.configuration.tree import ARGUMENTS, CLASS_PATH, PROMPT_TEXT, key_inside, key_of_item
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.path_lengths import refuse_too_long

OnPath = Callable[[str, str], str]
"""Takes a path and its dotted key, and returns the path that stands there from now on."""
NO_PATHS: frozenset[str] = frozenset()
OUTPUT_ROOT = "output_root"
OF_AN_EXPERIMENT = frozenset({PROMPT_TEXT})
"""Paths among the keys of the top level; the folder of all runs stays as it is written."""


def paths_beside_files(tree: Mapping[str, Any], opened: Sequence[str]) -> dict[str, Any]:
    """Returns a composed tree whose files' paths are absolute; nothing is interpolated yet.

    Raises:
        BadInputError: If a path is not there beside its file, but is as seen from the working directory.
    """
    return with_paths(tree, look_beside, opened)


def absolute_paths(tree: Mapping[str, Any], opened: Sequence[str]) -> dict[str, Any]:
    """Returns an interpolated tree whose paths are absolute; relative ones stand in the working directory.

    Raises:
        BadInputError: If a path, or the folder of all runs, is longer than any file's.
    """
    refuse_too_long(str(tree.get(OUTPUT_ROOT) or ""), OUTPUT_ROOT)
    return with_paths(tree, absolute_path, opened)


def absolute_path(path: str, key: str) -> str:
    """Returns a path as an absolute one.

    Raises:
        BadInputError: If it is longer than any file's.
    """
    refuse_too_long(path, key)
    return absolute(path) if path.strip() else path


def portable_paths(config: Mapping[str, Any], opened: Sequence[str]) -> dict[str, Any]:
    """Returns a resolved configuration as a run keeps it: absolute paths, and names of places where there are any."""
    return with_paths(config, lambda path, _: portable(path), opened)


def paths_in_names(config: Mapping[str, Any], opened: Sequence[str]) -> dict[str, Any]:
    """Returns a resolved configuration, or sections of one, as names of evaluations' folders are made from it."""
    return with_paths(config, lambda path, _: hashed(path, CHECKOUT), opened)


def look_beside(path: str, key: str) -> str:
    """Returns a file's path as an absolute one.

    Raises:
        BadInputError: If only the working directory has it.
    """
    if not isinstance(path, FileText) or path.strip() in ("", PLACEHOLDER) or "\0" in path:
        return str(path)  # what is no path is refused as what it is
    found = beside_its_file(path)
    if not path.startswith("${") and not os.path.lexists(found):
        from_here = absolute(path)
        if os.path.lexists(from_here):
            raise BadInputError(
                f"there is no {found}",
                where=key,
                expected="a path as seen from the file that names it",
                hint=f"it is there as seen from the working directory: write {os.path.relpath(from_here, path.folder)}",
            )
    return found


def with_paths(tree: Mapping[str, Any], on_path: OnPath, opened: Sequence[str]) -> dict[str, Any]:
    """Returns a copy of a tree, of plain values, in which every path is what a function makes of it.

    Args:
        tree: A configuration whose classes may be imported.
        on_path: The function.
        opened: Packages that ``--allow-import`` has opened.
    """

    def copied(value: Any, key: str, is_path: bool = False) -> Any:
        if isinstance(value, str):
            return on_path(value, key) if is_path and not value.startswith(HUB) else str(value)
        if isinstance(value, list):
            return [copied(item, key_of_item(key, item), is_path) for item in value]
        if not isinstance(value, Mapping):
            return value
        paths = paths_among_arguments(value, key, opened)
        if CLASS_PATH not in value and ARGUMENTS not in value:
            return inside(value, key, paths)
        return {
            name: inside(inner, key, paths)
            if name == ARGUMENTS and isinstance(inner, Mapping)
            else copied(inner, key_inside(key, name))
            for name, inner in value.items()
        }

    def inside(value: Mapping[str, Any], key: str, paths: frozenset[str]) -> dict[str, Any]:
        return {name: copied(inner, key_inside(key, name), name in paths) for name, inner in value.items()}

    return inside(tree, "", OF_AN_EXPERIMENT)


def paths_among_arguments(value: Mapping[str, Any], key: str, opened: Sequence[str]) -> frozenset[str]:
    """Returns the names of a group's settings, or of a component's arguments, that are paths."""
    class_path = value.get(CLASS_PATH)
    owner: type[Any] | None = class_of(class_path, opened) if isinstance(class_path, str) else GROUPS.get(key)
    if owner is None:
        return NO_PATHS
    arguments = value.get(ARGUMENTS, value)
    files = file_arguments(owner) if isinstance(arguments, Mapping) else NO_PATHS
    return path_arguments(owner) | {name for name in files if is_yaml(arguments.get(name))}


def class_of(class_path: str, opened: Sequence[str]) -> type[Any] | None:
    """Returns the class of a path, or of a short name among what is imported; None if there is none that may be used.

    What goes wrong here goes wrong again when the parser reads the class, and is reported there.
    """
    if not is_allowed(class_path, opened):
        return None
    module, _, name = class_path.rpartition(".")
    if not module:
        return class_of_short_name(name, (*OUR_PACKAGES, "lightning.pytorch", *ALLOWED, *opened))
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception:
        return None
    return found if inspect.isclass(found) else None


def class_of_short_name(name: str, packages: Sequence[str]) -> type[Any] | None:
    """Returns the first class of a name in packages' modules, as far as they are imported; None if there is none."""
    modules = list(sys.modules.items())
    for package in packages:
        for module_name, module in modules:
            found = vars(module).get(name) if f"{module_name}.".startswith(f"{package}.") else None
            if inspect.isclass(found) and f"{found.__module__}.".startswith(f"{package}."):
                return found
    return None
