r"""Resolves ``${key}`` in a composed experiment, after every file and every word of the command line has been read.

``${data.root}`` takes another setting's value, with its type where it stands alone. ``${oc.env:M2PT_DATA,data}`` takes
one of two environment variables, or what follows the comma. Nothing else is read from the environment, and no other
resolver exists: a configuration may come from a stranger. ``\${`` is the text ``${``.
"""

import re
from collections.abc import Mapping
from typing import Any

from experiments.composition import ARGUMENTS, CLASS_PATH, arguments_of
from experiments.environment import FOR_CONFIGURATIONS
from lightning_m2pt.errors import BadInputError

INTERPOLATION = re.compile(r"\\\$\{|\$\{([^${}]*)\}|\$\{")
VARIABLE = re.compile(r"oc\.env:\s*(\w+)\s*(?:,(.*))?", re.DOTALL)
DOTTED = re.compile(r"\w+(?:\.\w+|\[\d+\])*")


class Interpolation:
    """Resolves the interpolations of one tree.

    Args:
        tree: The composed settings.
        environment: Variables by name.
    """

    def __init__(self, tree: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self.tree = tree
        self.environment = environment

    def resolved(self) -> dict[str, Any]:
        """Returns the tree with every interpolation replaced.

        Raises:
            BadInputError: If a key is not set, refers to itself, or something else than a key or a documented
                variable is asked for.
        """
        tree: dict[str, Any] = self.walk(self.tree, "", ())
        return tree

    def walk(self, value: Any, key: str, asking: tuple[str, ...]) -> Any:
        """Resolves a value.

        Args:
            value: What stands in the tree.
            key: Its dotted key.
            asking: The keys whose values asked for this one.
        """
        if isinstance(value, Mapping):
            inner = {name: key if name == ARGUMENTS else f"{key}.{name}".lstrip(".") for name in value}
            return {name: self.walk(item, inner[name], asking) for name, item in value.items()}
        if isinstance(value, list):
            names = [str(item.get(CLASS_PATH, "")) if isinstance(item, Mapping) else "" for item in value]
            keys = [f"{key}.{name.rpartition('.')[2]}".rstrip(".") for name in names]
            return [self.walk(item, inner, asking) for item, inner in zip(value, keys, strict=True)]
        if not isinstance(value, str) or "${" not in value:
            return value
        whole = INTERPOLATION.fullmatch(value)
        if whole is not None and whole[1] is not None:
            return self.answer(whole[1], key, asking)
        return INTERPOLATION.sub(lambda match: self.text_of(match, key, asking), value)

    def text_of(self, match: re.Match[str], key: str, asking: tuple[str, ...]) -> str:
        """Returns what takes an interpolation's place inside a longer text.

        Raises:
            BadInputError: If it is not closed, holds another one, or its value is no scalar.
        """
        if match[0] == "\\${":
            return "${"
        if match[1] is None:
            raise BadInputError("this ${ is not closed, or holds another one", where=key, expected="${KEY}")
        value = self.answer(match[1], key, asking)
        if value is None or isinstance(value, (Mapping, list, bool)):
            raise BadInputError(f"${{{match[1]}}} is {value!r:.40}", where=key, expected="a text or a number in here")
        return str(value)

    def answer(self, asked: str, key: str, asking: tuple[str, ...]) -> Any:
        """Returns the value of a key, or of a documented environment variable.

        Raises:
            BadInputError: If it may not be read, is not set, or refers to itself.
        """
        asked = asked.strip()
        if ":" in asked:
            return self.variable(asked, key)
        if not DOTTED.fullmatch(asked):
            raise BadInputError(f"${{{asked}}} is no key", where=key, expected="${KEY}, such as ${data.root}")
        if asked in asking:
            raise BadInputError(f"${{{asked}}} refers to itself", where=key, expected="a value")
        value: Any = self.tree
        for part in re.findall(r"\w+", asked):
            value = inside(value, part)
            if value is MISSING:
                raise BadInputError(
                    f"${{{asked}}}: this key is not set",
                    where=key,
                    expected="a key that a file or the command line sets",
                    hint="defaults cannot be asked for: write the value where it is meant",
                )
        return self.walk(value, key, (*asking, asked))

    def variable(self, asked: str, key: str) -> str:
        """Returns one of the documented environment variables, or what stands behind the comma.

        Raises:
            BadInputError: If it is another one or not set, or another resolver is asked for.
        """
        found = VARIABLE.fullmatch(asked)
        name = found[1] if found else asked.partition(":")[0]
        if found is None or name not in FOR_CONFIGURATIONS:
            raise BadInputError(
                f"${{{asked[:60]}}} is not read: a configuration may not ask for {name}",
                where=key,
                expected=" or ".join(f"${{oc.env:{variable},DEFAULT}}" for variable in FOR_CONFIGURATIONS),
                hint="write the value itself, here or on the command line",
            )
        if name in self.environment:
            return self.environment[name]
        if found[2] is None:
            raise BadInputError(
                f"{name} is not set", where=key, expected=f"export {name}=DIR, or ${{oc.env:{name},DIR}}"
            )
        return found[2].strip()


MISSING = object()


def inside(value: Any, part: str) -> Any:
    """Returns what stands under a key's part; ``init_args`` may be left out, an item of a list goes by its number."""
    if isinstance(value, list):
        return value[int(part)] if part.isdecimal() and int(part) < len(value) else MISSING
    if not isinstance(value, dict):
        return MISSING
    return value[part] if part in value else arguments_of(value).get(part, MISSING)
