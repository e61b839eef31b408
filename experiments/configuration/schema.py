"""The signatures that are the schema of a configuration: who takes a group's settings, by what names, and where null.

jsonargparse takes null for "not given": a required setting would be missing without its place, and another one would
reach a constructor that cannot do without it, or silently become its default.
"""

import importlib
import inspect
import sys
import typing
from collections.abc import Mapping
from types import NoneType
from typing import Any

from lightning.pytorch import Trainer

from lightning_m2pt.backbones.shortcuts import Shortcuts
from lightning_m2pt.configuration.tree import ARGUMENTS, CLASS_PATH, TOP_LEVEL_KEYS, key_inside, key_of_item
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.tuning.gradient_norm import GradientNorm
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.optimizer import AdamW, Schedule

OUR_PACKAGES = ("lightning_m2pt", "data_modules", "callbacks")
GROUPS: dict[str, Any] = {
    "trainer": Trainer,
    "model": TuningModule,
    "model.optimizer": AdamW,
    "model.schedule": Schedule,
    "model.shortcuts": Shortcuts,
    "model.gradient_norm": GradientNorm,
}


def owner_of(group: str, class_path: str = "") -> Any:
    """Returns the class whose signature a group's settings follow; None for the top level and others' classes.

    Args:
        group: Dotted key of the group.
        class_path: The group's class if it is a component.
    """
    if not class_path:
        return GROUPS.get(group)
    module, _, name = class_path.rpartition(".")
    if module.split(".")[0] not in OUR_PACKAGES:
        return None
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


def accepted_names(group: str, class_path: str) -> list[str]:
    """Returns the keys a group or a class accepts; none for a class that nobody has imported yet."""
    module, _, name = class_path.rpartition(".")
    owner = owner_of(group, class_path) or GROUPS.get(group) or getattr(sys.modules.get(module), name, None)
    if owner is None:
        return [] if group else list(TOP_LEVEL_KEYS)
    return list(inspect.signature(owner).parameters)


def check_nulls(value: Mapping[str, Any], key: str = "") -> None:
    """Looks for null where a value is needed.

    Args:
        value: A group of settings, or a component.
        key: Its dotted key.

    Raises:
        BadInputError: At the first one.
    """
    is_component = CLASS_PATH in value or ARGUMENTS in value
    arguments = value.get(ARGUMENTS) if is_component else value
    if not isinstance(arguments, Mapping):
        return
    owner = owner_of(key, str(value.get(CLASS_PATH) or ""))
    for name, inner in arguments.items():
        place = key_inside(key, name)
        if inner is None and (not key or (owner is not None and not takes_null(owner, name))):
            raise BadInputError("null is no value of this key", where=place, expected="a value, or the line left out")
        for item in inner if isinstance(inner, list) else [inner]:
            if isinstance(item, Mapping):
                check_nulls(item, key_of_item(place, item) if isinstance(inner, list) else place)


def class_named(path: str) -> Any:
    """Returns an imported class by its path; None if there is none."""
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def takes_both(owner: Any, name: str) -> bool:
    """Tells whether a class's argument may be a whole number as well as another one."""
    try:
        hint = typing.get_type_hints(owner.__init__).get(name) if owner is not None else None
    except NameError:  # a name that only type checkers import
        return False
    return {int, float} <= set(typing.get_args(hint))


def takes_null(owner: Any, name: str) -> bool:
    """Tells whether a class's argument may be null; unknown names are left to the parser."""
    parameter = inspect.signature(owner).parameters.get(name)
    if parameter is None or parameter.default is None:
        return True
    hint = typing.get_type_hints(owner.__init__).get(name)
    return hint is None or hint in (Any, NoneType) or NoneType in typing.get_args(hint)
