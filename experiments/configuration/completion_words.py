"""An experiment's flags as a shell completes them: every key of the schema, and the values that have names."""

from collections.abc import Iterator, Mapping
from typing import Any

from experiments.configuration import catalogue
from experiments.configuration.composition import GROUPS
from experiments.configuration.stored_description import keep_schema, stored_schema

COMPONENTS = {"model.method": "method", "model.backbone": "backbone", "data": "set", "benchmarks": "evaluation_set"}
"""Where components stand, and what the schema calls their kinds."""


def words_of_experiments() -> dict[str, list[str]]:
    """Returns ``--KEY`` of every key, with the values that can be listed; keys of classes are those of all of them."""
    keep_schema()
    schema = stored_schema()
    words: dict[str, list[str]] = {
        "--config": [f"experiments/{entry.name}.yaml" for entry in catalogue.experiments()],
        "--allow-import": [],
    }
    if schema is None:  # there is no place to keep one
        return words
    described = schema["$defs"]
    words |= {f"--{key}": values_of(setting) for key, setting in schema["properties"].items() if "default" in setting}
    for group in filter(None, GROUPS):
        words |= dict(settings_of(group, described[group]))
    for key, kind in COMPONENTS.items():
        paths = [choice["if"]["properties"]["class_path"]["const"] for choice in described[kind]["anyOf"][1]["allOf"]]
        for path in paths:
            words |= dict(settings_of(key, described[path]))
        words[f"--{key}"] = paths
    words["--benchmarks+"] = words["--benchmarks"]
    return words


def settings_of(group: str, described: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yields the flags of a group's settings, with their values."""
    for name, setting in described["properties"].items():
        yield f"--{group}.{name}", values_of(setting)


def values_of(setting: Mapping[str, Any]) -> list[str]:
    """Returns the values a setting chooses from: names, and true or false."""
    options = [setting, *setting.get("anyOf", ())]
    named = [str(value) for option in options for value in option.get("enum", ())]
    is_switch = any(option.get("type") == "boolean" for option in options)
    return [*named, *(["true", "false"] if is_switch else [])]
