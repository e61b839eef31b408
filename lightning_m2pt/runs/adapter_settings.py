"""What an adapter's folder says of its method, as settings of an experiment.

The folder may be anybody's: its values are plain, name no file and ask for no other value, and the class is one of the
library's methods or the experiment's own.
"""

import importlib
import json
import pkgutil
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_m2pt import methods
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.storage.adapter_folder import CONFIG_FILE, read_adapter_config

METHOD = "model.method"
RATES = "model.optimizer.learning_rate=0.001"
"""Nothing is tuned: one number fits every method."""
TOGETHER = "+"
"""Stands between the names of combined methods."""
INTERPOLATION = "${"
LAYER = re.compile(r"\w+(?:\.\w+)*", re.ASCII)


def method_settings(adapter: Path) -> list[str]:
    """Returns words that set an experiment's method to an adapter's, arguments that decide no tensor left alone.

    Of a method that the library does not have only the arguments are set; the experiment names its class.

    Args:
        adapter: The adapter's folder.

    Raises:
        BadInputError: If it is no adapter's folder, or its arguments are no plain values.
    """
    config, path = read_adapter_config(adapter), adapter / CONFIG_FILE
    arguments = config.get("arguments")
    if not isinstance(arguments, dict) or not all(is_plain(name, value) for name, value in arguments.items()):
        raise BadInputError("no arguments of a method in here", where=str(path), expected="names and plain values")
    rates = f"--{RATES}"  # the experiment's may be by the parts of another method
    known, names = classes_by_name(), str(config.get("peft_type")).lower().split(TOGETHER)
    if len(names) > 1 and all(name in known and isinstance(arguments.get(name), dict) for name in names):
        members = [{"class_path": class_path(known[name]), "init_args": arguments[name]} for name in names]
        return [rates, f"--{METHOD}={class_path(Combined)}", f"--{METHOD}.methods={json.dumps(members)}"]
    named = [f"--{METHOD}={class_path(known[names[0]])}"] if len(names) == 1 and names[0] in known else []
    return [rates, *named, *(f"--{METHOD}.{name}={text_of(value)}" for name, value in arguments.items())]


def classes_by_name() -> dict[str, type[Method]]:
    """Returns the library's methods by the names that they and their adapters go by."""
    found: dict[str, type[Method]] = {}
    for module in pkgutil.iter_modules(methods.__path__):
        for value in vars(importlib.import_module(f"{methods.__name__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Method) and isinstance(vars(value).get("name"), str):
                found[value.name] = value
    return found


def class_path(of: type) -> str:
    """Returns how a configuration names a class."""
    return f"{of.__module__}.{of.__qualname__}"


def text_of(value: object) -> str:
    """Returns a value as a command line has it."""
    return value if isinstance(value, str) else json.dumps(value)


def is_plain(name: object, value: object) -> bool:
    """Tells whether this can be an argument: a name, and a value, or values, that stand for nothing else."""
    if not isinstance(name, str) or not name.isidentifier():
        return False
    if isinstance(value, Mapping):  # the names of layers, which have dots, stay inside the value
        return all(
            isinstance(inner, str) and LAYER.fullmatch(inner) and is_plain(name, one) for inner, one in value.items()
        )
    if isinstance(value, list):
        return all(is_plain(name, one) for one in value)
    return not isinstance(value, str) or INTERPOLATION not in value


def names_experiment(words: Sequence[str]) -> bool:
    """Tells whether one of a command line's words names an experiment's file."""
    return any(word.partition("=")[0] in ("--config", "-c") for word in words)


def require_config(words: Sequence[str], adapter: Path) -> None:
    """Looks for the experiment that says what an adapter's base is.

    Raises:
        BadInputError: If no word names one.
    """
    if not names_experiment(words):
        raise BadInputError(
            f"{adapter} does not say where its base is",
            where="command line: --adapter",
            expected="--config FILE, an experiment on the base that the adapter was tuned on",
        )
