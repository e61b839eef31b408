"""Which packages a configuration may name classes of.

Naming a class imports its module, which runs what is written there, and a configuration may come from a stranger.
jsonargparse asks this policy before it imports anything that a value names, and again for where the object found is
defined. A user opens further packages by name, command by command: ``--allow-import PACKAGE``. A run's folder records
what was opened, and opens nothing by itself: it may be a stranger's, too.
"""

import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from jsonargparse import Namespace, set_parsing_settings

from lightning_m2pt.configuration.tree import CLASS_NAME, CLASS_PATH, key_inside
from lightning_m2pt.errors import BadInputError

IMPORT_FLAG = "--allow-import"
ALLOWED = ("lightning_m2pt", "data_modules", "callbacks", "lightning", "torch", "torchmetrics")
CALLS_FUNCTIONS = ("lightning.pytorch.callbacks.LambdaCallback", "lightning.pytorch.callbacks.lambda_function")
EVERYTHING = "*"


@contextmanager
def only_allowed_imports(opened: Sequence[str]) -> Iterator[None]:
    """Lets configurations import from the allowed and the opened packages while they are parsed, and nothing else.

    Args:
        opened: What ``--allow-import`` names.
    """
    others = [package for package in opened if package.partition(".")[0] not in ALLOWED]
    set_parsing_settings(
        import_path_denylist=[EVERYTHING, *CALLS_FUNCTIONS],
        import_path_allowlist=[*ALLOWED, *others],
        config_read_mode_fsspec_enabled=False,  # LightningCLI would fetch a file named by its address
        instantiate_subclass_spec_in_any=False,
    )
    try:
        yield
    finally:
        if others:
            set_parsing_settings(import_path_denylist=others)


def check_opened(opened: Sequence[str]) -> None:
    """Looks whether the packages of ``--allow-import`` are there.

    Raises:
        BadInputError: If one is no package's name, or not installed.
    """
    for package in opened:
        if not all(part.isidentifier() for part in package.split(".")) or package.partition(".")[0] == "jsonargparse":
            raise BadInputError(f"{package!r:.60} cannot be opened", where=IMPORT_FLAG[2:], expected="a package's name")
        if not is_there(package):
            raise BadInputError(
                f"there is no package {package}",
                where=IMPORT_FLAG[2:],
                expected="a package that is installed, or whose folder PYTHONPATH names",
            )


def is_there(package: str) -> bool:
    """Tells whether a package can be imported; of one inside another, the outer one is."""
    try:
        return package in sys.modules or importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def is_allowed(class_path: str, opened: Sequence[str]) -> bool:
    """Tells whether a class's module may be imported; a name without its module is looked up among the imported."""
    return "." not in class_path or f"{class_path}.".startswith(tuple(f"{name}." for name in (*ALLOWED, *opened)))


def check_class_paths(value: Any, opened: Sequence[str], key: str = "") -> None:
    """Looks at every class a composed tree names, before anything is imported.

    Raises:
        BadInputError: At the first that is no class path, or of a package that is not allowed.
    """
    if isinstance(value, list):
        for item in value:
            check_class_paths(item, opened, key)
        return
    if not isinstance(value, Mapping):
        return
    class_path = value.get(CLASS_PATH)
    if CLASS_PATH in value and (not isinstance(class_path, str) or not CLASS_NAME.fullmatch(class_path)):
        raise BadInputError(f"{class_path!r:.60} is no class path", where=key, expected="package.module.Class")
    if isinstance(class_path, str) and not is_allowed(class_path, opened):
        raise not_allowed(class_path, key)
    for name, inner in value.items():
        check_class_paths(inner, opened, key_inside(key, name))


def not_allowed(path: str, key: str) -> BadInputError:
    """Returns the error about something that may not be imported."""
    top = path.partition(".")[0]
    if top in ALLOWED:
        return BadInputError(f"{path} calls functions by name", where=key, expected="a class of your own, or another")
    return BadInputError(
        f"{path} is not imported: naming it would run code of {top}",
        where=key,
        expected=f"a class of {', '.join(ALLOWED)}",
        hint=f"{IMPORT_FLAG} {top} opens the package for this command; open only what you trust",
    )


def refuse_functions(value: Any, key: str = "") -> None:
    """Refuses every function that a value has been resolved to: it would be called with what it never expected.

    Raises:
        BadInputError: At the first one.
    """
    if isinstance(value, (Namespace, Mapping)):
        pairs = vars(value).items() if isinstance(value, Namespace) else value.items()
        for name, inner in pairs:
            refuse_functions(inner, key_inside(key, name))
            if name == CLASS_PATH and isinstance(inner, str) and is_function(inner):
                raise BadInputError(f"{inner} is a function", where=key, expected="a class")
    elif isinstance(value, (list, tuple)):
        for item in value:
            name = str(item.get(CLASS_PATH, "")).rpartition(".")[2] if isinstance(item, Namespace) else ""
            refuse_functions(item, f"{key}.{name}".rstrip("."))
    elif callable(value) and not inspect.isclass(value):
        raise BadInputError(
            f"the function {getattr(value, '__name__', value)} is not called from a configuration",
            where=key,
            expected="plain values",
            hint=f"a class of your own can call it: {IMPORT_FLAG} PACKAGE",
        )


def is_function(path: str) -> bool:
    """Tells whether a path of something that has been imported leads to a function."""
    module, _, name = path.rpartition(".")
    return inspect.isroutine(getattr(sys.modules.get(module), name, None))
