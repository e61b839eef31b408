"""What an adapter's folder says of its method, as the method: no configuration is parsed, nothing is imported by name.

The folder may be anybody's: the class is one of the library's, and every value is of the type that its constructor
says.
"""

import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from lightning_m2pt.errors import BadInputError, M2PTError
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.runs.adapter_settings import TOGETHER, classes_by_name, is_plain

METHOD, ARGUMENTS = "peft_type", "arguments"
"""Keys of an adapter's configuration."""


def adapter_method(config: Mapping[str, Any], where: str) -> Method:
    """Makes the method that an adapter is of; nothing is built.

    Args:
        config: The adapter's configuration.
        where: Its file, for messages.

    Raises:
        BadInputError: If the library has no such method, or it takes other arguments.
    """
    known, named = classes_by_name(), str(config.get(METHOD))
    names, arguments = named.lower().split(TOGETHER), config.get(ARGUMENTS)
    for name in names:
        if name not in known or issubclass(known[name], Combined):
            raise BadInputError(
                f"{named:.60} is no method of the library",
                where=f"{where}: {METHOD}",
                expected=", ".join(sorted(name.upper() for name in known)),
                hint="a method of your own is named by an experiment: --config FILE --allow-import PACKAGE",
            )
    if not isinstance(arguments, dict):
        raise BadInputError("no arguments in here", where=f"{where}: {ARGUMENTS}", expected="the method's arguments")
    if len(names) == 1:
        return made(known[names[0]], arguments, f"{where}: {ARGUMENTS}")
    for name in sorted({*names} ^ {*arguments}):
        raise BadInputError(
            f"{name!r:.60} is {'no method of this adapter' if name in arguments else 'missing'}",
            where=f"{where}: {ARGUMENTS}",
            expected=f"arguments of {', '.join(names)}",
        )
    return Combined([made(known[name], arguments[name], f"{where}: {ARGUMENTS}.{name}") for name in names])


def made(kind: type[Method], arguments: object, where: str) -> Method:
    """Returns a method of the library with an adapter's arguments.

    Args:
        kind: Its class.
        arguments: Argument by name.
        where: Where they stand, for messages.

    Raises:
        BadInputError: If the method has no such argument, or a value is not what it takes.
    """
    signature = inspect.signature(kind.__init__).parameters
    hints = typing.get_type_hints(kind.__init__)
    if not isinstance(arguments, dict):
        raise BadInputError(f"{arguments!r:.60} are no arguments", where=where, expected="names and plain values")
    for name, value in arguments.items():
        if name not in signature or name == "self":
            raise BadInputError(
                f"{kind.name} has no argument {name!r:.60}",
                where=where,
                expected=f"{', '.join(each for each in signature if each != 'self')} and no others",
            )
        if not is_plain(name, value) or not fits(value, hints[name]):
            raise BadInputError(
                f"{value!r:.60} is no {name}", where=f"{where}.{name}", expected=f"{words_of(hints[name])}"
            )
    try:
        method = kind(**arguments)
    except BadInputError as error:
        raise BadInputError(
            error.what, where=f"{where} ({error.where})", expected=error.expected, hint=error.hint
        ) from error
    except M2PTError:
        raise
    except (TypeError, ValueError, OverflowError) as error:  # JSON's whole numbers may be larger than any fraction
        raise BadInputError(f"{error!s:.120}", where=where, expected=f"arguments of {kind.name}") from error
    said = {*method.adapter_config(), *kind.later_arguments}
    for name in sorted({*arguments} - said):
        raise BadInputError(
            f"{kind.name} keeps no argument {name!r:.60}",
            where=where,
            expected=f"{', '.join(method.adapter_config())} and no others",
        )
    return method


def fits(value: object, annotation: Any) -> bool:  # noqa: ANN401
    """Tells whether a JSON value is of an annotation's type; whole numbers are fractions too, and lists are tuples.

    Args:
        value: The value.
        annotation: Of plain types, literals, unions, lists, tuples and objects; of anything else no value is. Of Any is
            what JSON has, where the method itself looks at the values.
    """
    if annotation is Any:
        return value is None or isinstance(value, bool | int | float | str | list | dict)
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in inner)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, each) for each in inner)
    if origin is list:
        return isinstance(value, list) and all(fits(each, inner[0]) for each in value)
    if origin is tuple:
        return isinstance(value, list) and len(value) == len(inner) and all(map(fits, value, inner))
    if origin is dict:
        return isinstance(value, dict) and all(fits(each, inner[1]) for each in value.values())
    if annotation is float:
        return type(value) in (int, float)
    return annotation in (int, bool, str, types.NoneType) and type(value) is annotation


def words_of(annotation: Any) -> str:  # noqa: ANN401
    """Returns what values fit an annotation, as people read it."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(words_of, inner))
    if origin in (list, tuple):
        return f"a list of {words_of(inner[0])}"
    if origin is dict:
        return f"an object that has {words_of(inner[1])} for each name"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Any: "a plain value"}.get(
        annotation, "null"
    )
