"""Puts an experiment together: configuration files in order, then the command line, one tree of plain values.

A later value replaces an earlier one; groups of settings are merged key by key. A component (``class_path`` with
``init_args``) keeps its arguments while its class stays the same; another class starts from its own defaults. Lists
are replaced; ``--KEY+=ITEM`` adds to one. ``init_args`` is left out of keys.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from lightning_m2pt.configuration.allowed_imports import IMPORT_FLAG
from lightning_m2pt.configuration.paths import values_of_files
from lightning_m2pt.configuration.tree import ARGUMENTS, CLASS_NAME, CLASS_PATH, PROMPT_TEXT, key_inside, key_of_item
from lightning_m2pt.errors import BadInputError

Accepts = Callable[[str, str], bool]
"""Tells whether a class, given by its path, takes an argument of a name."""

MAY_BE_NULL = ("model.gradient_norm",)
"""Groups of settings that may be left out as a whole."""
GROUPS = ("", "trainer", "model", "model.optimizer", "model.schedule", "model.shortcuts", *MAY_BE_NULL)
COMPONENTS = ("data", "model.backbone", "model.method")
LISTS = ("benchmarks", "model.regularisers", "trainer.callbacks", "trainer.plugins")
"""Lists of components; one by itself is a list of one."""

EVALUATION_SETS = "benchmarks"
KEY = re.compile(r"--([A-Za-z_]\w*(?:[.-]\w+)*)(\+?)")
CONFIG_FLAGS = ("--config", "-c")
AS_A_FLAG = {PROMPT_TEXT.replace("_", "-"): PROMPT_TEXT}
"""Keys that are written as flags are, too."""


@dataclass(frozen=True)
class Setting:
    """One setting of the command line.

    Attributes:
        key: Its dotted key.
        text: What is written.
        appends: Whether it adds to a list.
        node: The tree of the part that it names, or of a mapping or list that it is written as; None for other text.
    """

    key: str
    text: str
    appends: bool = False
    node: yaml.Node | None = None


@dataclass(frozen=True)
class CommandLine:
    """A command line's words, sorted by what they are."""

    files: tuple[str, ...]
    opened: tuple[str, ...]
    settings: tuple[Setting, ...]


def read_words(words: Sequence[str]) -> CommandLine:
    """Sorts words into files, opened packages and settings; every flag takes one value.

    Raises:
        BadInputError: If a word is none of these, or a flag has no value.
    """
    files, opened, settings = [], [], []
    rest = iter(words)
    for word in rest:
        flag, has_value, text = word.partition("=")
        key = KEY.fullmatch(flag)
        if key is None and flag not in CONFIG_FLAGS:
            raise BadInputError(f"{word!r:.60} is no setting", where="command line", expected="--KEY VALUE")
        if not has_value:
            following = next(rest, None)
            if following is None or following.startswith("--"):
                raise BadInputError("a value is missing", where=f"command line: {flag}", expected=f"{flag} VALUE")
            text = following
        if flag in CONFIG_FLAGS:
            files.append(text)
        elif flag == IMPORT_FLAG:
            opened.append(text)
        elif key is not None:
            parts = [part for part in key[1].split(".") if part != ARGUMENTS]
            name = ".".join(parts[:-1] if parts[1:] and parts[-1] == CLASS_PATH else parts)
            settings.append(Setting(AS_A_FLAG.get(name, name), text, bool(key[2])))
    # A whole comes before its parts: naming a class never undoes what was set of it. Lists keep their words' order.
    settings.sort(key=lambda setting: (list_of(setting.key) or setting.key).count("."))
    return CommandLine(tuple(files), tuple(opened), tuple(settings))


def list_of(key: str) -> str | None:
    """Returns the list of components that a key names or leads into, if there is one."""
    return next((listed for listed in LISTS if f"{key}.".startswith(f"{listed}.")), None)


def compose(trees: Sequence[Mapping[str, Any]], settings: Sequence[Setting], accepts: Accepts) -> dict[str, Any]:
    """Returns the experiment's settings as one tree; nothing is imported, interpolated or checked against types.

    Args:
        trees: What the files hold, in order.
        settings: What the command line sets, in order.
        accepts: Asked which of several evaluation sets a setting is meant for.

    Raises:
        BadInputError: If it is unclear what a setting is meant for, or something has no keys.
    """
    tree: dict[str, Any] = {}
    for read in trees:
        tree = merged(tree, read, "")
    named: set[str] = set()  # lists whose last item this command line has named
    for setting in settings:
        value = value_of_text(setting)
        listed = list_of(setting.key)
        if listed not in (None, setting.key):
            chosen = items_meant(tree, listed, setting, accepts, last_is_named=listed in named)
            for item in chosen:
                put(item, setting.key.removeprefix(f"{listed}."), value, inside=listed)
            continue
        if setting.appends:
            value = [*items(value_at(tree, setting.key)), *items(value)]
        put(tree, setting.key, value)
        (named.add if value_is_one(setting) else named.discard)(setting.key)
    return tree


def check_names(value: Any, key: str = "") -> None:
    """Looks for a dotted name among the settings of a group, or the arguments of a component.

    The parser would read it as the key that it spells, after everything else: over later files and the command line,
    and past all that is done with paths and looked at in values.

    Args:
        value: A composed tree, or a part of it.
        key: Its dotted key.

    Raises:
        BadInputError: At the first one.
    """
    if isinstance(value, list):
        for item in value:
            check_names(item, key_of_item(key, item))
    if not isinstance(value, Mapping):
        return
    found = value.get(ARGUMENTS) if is_component(value) else value if key in GROUPS else None
    named = [*(value if is_component(value) else ()), *(found if isinstance(found, Mapping) else ())]
    dotted = next((name for name in named if "." in name), None)
    if dotted is not None:
        raise BadInputError(
            f"the name {dotted!r:.60} has a dot in it",
            where=key,
            expected="every group on a line of its own",
        )
    for name, inner in value.items():
        if name == ARGUMENTS and isinstance(inner, Mapping):
            for argument, given in inner.items():
                check_names(given, key_inside(key, argument))
        else:
            check_names(inner, key_inside(key, name))


def value_is_one(setting: Setting) -> bool:
    """Tells whether a setting names one component, to which later keys of its list belong."""
    return not isinstance(setting.node, yaml.SequenceNode)


def value_of_text(setting: Setting) -> Any:
    """Returns a mapping, list or part as such, and null; other text stays text, the parser knows the type wanted."""
    if setting.node is not None:
        return values_of_files(setting.node)
    return None if setting.text == "null" else setting.text


def merged(old: Any, new: Any, key: str) -> Any:
    """Returns ``new`` put over ``old``.

    Args:
        old: What stands there; None if nothing does.
        new: What comes later.
        key: The dotted key of both.

    Raises:
        BadInputError: If a group of settings is no mapping.
    """
    if key in LISTS and new is not None:
        return items(new)
    if key in GROUPS and not is_component(new):
        if new is None and key in MAY_BE_NULL:
            return None
        if not isinstance(new, Mapping):
            shown = "null" if new is None else repr(new)[:60]
            raise BadInputError(f"{shown} holds no settings", where=key, expected=f"{key}.KEY, or key: value lines")
        before = old if isinstance(old, Mapping) else {}
        joined = {name: merged(before.get(name), value, f"{key}.{name}".lstrip(".")) for name, value in new.items()}
        return {**before, **joined}
    if key in COMPONENTS or is_component(old) or is_component(new):
        return merged_component(old, new)
    return new


def merged_component(old: Any, new: Any) -> Any:
    """Returns a component put over another; arguments stay if the class does, or was not named before."""
    before, after = as_component(old), as_component(new)
    if before is None or after is None:
        return new if after is None else after
    paths = [str(component[CLASS_PATH]) for component in (before, after) if component.get(CLASS_PATH) is not None]
    kept, given = before.get(ARGUMENTS) or {}, after.get(ARGUMENTS) or {}
    if (len(paths) == 2 and not same_class(*paths)) or not isinstance(kept, Mapping) or not isinstance(given, Mapping):
        return after
    arguments = {**kept, **{name: merged(kept.get(name), value, "-") for name, value in given.items()}}
    named = {CLASS_PATH: max(paths, key=len)} if paths else {}
    return {**before, **after, **named, ARGUMENTS: arguments}


def put(tree: dict[str, Any], key: str, value: Any, inside: str = "") -> None:
    """Sets one dotted key.

    Args:
        tree: What it is a key of.
        key: The dotted key.
        value: What it becomes.
        inside: The list that ``tree`` is an item of, if it is one.

    Raises:
        BadInputError: If something on the way has no keys.
    """
    *group, last = key.split(".")
    place = tree
    for depth, part in enumerate(group, start=1):
        target = arguments_of(place)
        value_there = target.get(part)
        found = as_component(value_there) if isinstance(value_there, str) else value_there
        if (found is None and value_there is not None) or isinstance(found, list):
            raise BadInputError(
                f"{value_there!r:.60} has no keys",
                where=f"{inside}.{key}".lstrip("."),
                expected=f"{'.'.join(group[:depth])} as a whole",
            )
        place = found if isinstance(found, dict) else {}
        target[part] = place
    target = arguments_of(place)
    target[last] = merged(target.get(last), value, f"{inside}.{key}".lstrip("."))


def items_meant(
    tree: dict[str, Any], listed: str, setting: Setting, accepts: Accepts, *, last_is_named: bool
) -> list[dict[str, Any]]:
    """Returns the items of a list that a key is meant for: the one just named, the only one, or all evaluation sets.

    Raises:
        BadInputError: If there is none, or it is unclear which one is meant.
    """
    found = [item for item in items(value_at(tree, listed)) if isinstance(item, dict)]
    name = setting.key.removeprefix(f"{listed}.").split(".")[0]
    chosen: list[dict[str, Any]] = []
    if last_is_named or len(found) == 1:
        chosen = found[-1:]
    elif listed == EVALUATION_SETS and name != "root":
        chosen = [item for item in found if accepts(str(item.get(CLASS_PATH)), name)] or found
    if not chosen:
        raise BadInputError(
            f"it is unclear which of {len(found)} is meant" if found else "there is nothing to set this of",
            where=setting.key,
            expected=f"--{listed}+=CLASS before it, or the whole list in a file or as JSON",
        )
    return chosen


def value_at(tree: Mapping[str, Any], key: str) -> Any:
    """Returns what stands at a dotted key; None if nothing does."""
    value: Any = tree
    for part in key.split("."):
        value = arguments_of(value).get(part) if isinstance(value, dict) else None
    return value


def arguments_of(place: dict[str, Any]) -> dict[str, Any]:
    """Returns where a component's arguments stand; a group of settings is its own place."""
    if not is_component(place):
        return place
    if not isinstance(place.get(ARGUMENTS), dict):
        place[ARGUMENTS] = {}
    found: dict[str, Any] = place[ARGUMENTS]
    return found


def is_component(value: Any) -> bool:
    """Tells whether a value says of itself that it is a class with arguments."""
    return isinstance(value, Mapping) and (CLASS_PATH in value or ARGUMENTS in value)


def as_component(value: Any) -> dict[str, Any] | None:
    """Returns a class's name, or arguments alone, as a component; None for what cannot be one."""
    if isinstance(value, str) and CLASS_NAME.fullmatch(value):
        return {CLASS_PATH: value}
    if isinstance(value, Mapping):
        return dict(value) if is_component(value) else {ARGUMENTS: dict(value)}
    return None


def same_class(one: str, other: str) -> bool:
    """Tells whether two names mean one class; a short name is its path's last part."""
    short = "." not in str(one) or "." not in str(other)
    return str(one).rpartition(".")[2] == str(other).rpartition(".")[2] if short else one == other


def items(value: Any) -> list[Any]:
    """Returns a list of components; one by itself, named or spelt out, is a list of one."""
    listed = value if isinstance(value, list) else [] if value is None else [value]
    return [(as_component(item) or item) if isinstance(item, str) else item for item in listed]
