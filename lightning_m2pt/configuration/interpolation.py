"""Resolves ``${key}`` in a composed experiment, after every file and every word of the command line has been read.

OmegaConf resolves. Before it does, everything is looked through: ``${data.init_args.root}`` takes another setting's
value, with its type where it stands alone; ``${oc.env:M2PT_DATA,data}`` takes one of two environment variables, or what
follows the comma; ``${embedded:NAME}`` is the folder of weights that come with the package. No other variable is read,
no other resolver called, and none is put together from parts: a configuration may come from a stranger. The text ``${``
itself has no place in a setting: a run keeps its settings resolved, and reading them again would resolve it.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_m2pt.configuration.paths import EMBEDDED, FOR_CONFIGURATIONS, embedded_names
from lightning_m2pt.configuration.tree import CLASS_PATH, leaves
from lightning_m2pt.errors import BadInputError

INTERPOLATION = re.compile(r"\\\$\{|\$\{([^${}]*)\}|\$\{")
VARIABLE = re.compile(rf"oc\.env:\s*({'|'.join(FOR_CONFIGURATIONS)})\s*(,[^,]*)?")
COMES_WITH_THE_PACKAGE = re.compile(r"embedded:\s*(\w+)")
SETTING = re.compile(r"\w+(?:\.\w+|\[\d+\])*")
NUMBERED = re.compile(r"\[(\d+)\]")

OmegaConf.register_resolver("embedded", lambda name: str(EMBEDDED / name), replace=True)


def interpolated(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a composed tree with every interpolation replaced.

    Raises:
        BadInputError: If a key is not set or refers to itself, or something else than a key or a documented variable
            is asked for.
    """
    for key, value in leaves(tree):
        if isinstance(value, str):
            check_text(value, key)
    settings = OmegaConf.create(dict(tree))
    try:
        check_joined(tree, settings)
        resolved = OmegaConf.to_container(settings, resolve=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInputError(
            f"{reason:.160}",
            where=named_items(str(error.full_key or ""), tree),
            expected="${KEY} of a key that a file or the command line sets, init_args included",
            hint="defaults cannot be asked for: write the value where it is meant",
        ) from error
    except RecursionError as error:
        raise BadInputError("an interpolation refers to itself", where="${...}", expected="a value") from error
    return cast(dict[str, Any], resolved)


def check_text(text: str, key: str) -> None:
    """Looks at what a text asks for.

    Raises:
        BadInputError: If it is neither a key nor a documented variable, is not closed, or is put together from parts.
    """
    for match in INTERPOLATION.finditer(text):
        asked = match[1]
        if match[0] == "\\${":
            raise BadInputError("the text ${ cannot stand in a setting", where=key, expected="${KEY}, or no ${")
        if asked is None:
            raise BadInputError("this ${ is not closed, or holds another one", where=key, expected="${KEY}")
        named = COMES_WITH_THE_PACKAGE.fullmatch(asked.strip())
        if named is not None and named[1] not in embedded_names():
            raise BadInputError(
                f"there is nothing embedded that is called {named[1][:60]}",
                where=key,
                expected=" or ".join(f"${{embedded:{name}}}" for name in embedded_names()),
            )
        if ":" in asked and named is None and not VARIABLE.fullmatch(asked.strip()):
            raise BadInputError(
                f"${{{asked[:60]}}} is not read: a configuration may not ask for it",
                where=key,
                expected=" or ".join(
                    [*(f"${{oc.env:{variable},DEFAULT}}" for variable in FOR_CONFIGURATIONS), "${embedded:NAME}"]
                ),
                hint="write the value itself, here or on the command line",
            )
        if ":" not in asked and not SETTING.fullmatch(asked.strip()):
            raise BadInputError(
                f"${{{asked[:60]}}} is no key", where=key, expected="${KEY}, such as ${data.init_args.root}"
            )


def check_joined(tree: Mapping[str, Any], settings: Any) -> None:
    """Looks at the values that stand inside longer texts; OmegaConf would write ``None`` or a whole list there.

    Raises:
        BadInputError: If one is neither a text nor a number.
    """
    for key, text in leaves(tree):
        if not isinstance(text, str) or INTERPOLATION.fullmatch(text):
            continue
        for match in INTERPOLATION.finditer(text):
            if match[1] is None or ":" in match[1]:
                continue
            value = OmegaConf.select(settings, match[1].strip(), throw_on_resolution_failure=True)
            if value is None or isinstance(value, bool) or OmegaConf.is_config(value):
                raise BadInputError(
                    f"${{{match[1][:60]}}} is not set, or no text", where=key, expected="a text or a number in here"
                )


def named_items(full_key: str, tree: Mapping[str, Any]) -> str:
    """Returns a key as messages write it: items of a list by their class's name, without ``init_args``."""
    value: Any = tree
    named = []
    for part in NUMBERED.sub(r".\1", full_key).split("."):
        value = value[int(part)] if isinstance(value, list) and part.isdecimal() else (value or {}).get(part)
        is_item = part.isdecimal() and isinstance(value, Mapping)
        named.append(str(value.get(CLASS_PATH, part)).rpartition(".")[2] if is_item else part)
    return ".".join(part for part in named if part != "init_args")
