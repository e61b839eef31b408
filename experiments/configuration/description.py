"""A JSON schema of experiment files, made from the signatures that the parser reads: for editors and early refusals.

What a schema cannot say is left open: own classes, re-exported names, values that only a constructor refuses. The
parser stays the authority.
"""

import importlib
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from docstring_parser import parse as parse_docstring
from lightning.pytorch import Callback

from callbacks import __path__ as callback_folders
from data_modules.base import DataModule
from data_modules.benchmark import BenchmarkDataModule
from experiments.configuration import catalogue
from experiments.configuration.composition import MAY_BE_NULL
from experiments.configuration.parts import INCLUDE
from experiments.configuration.schema import GROUPS
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.configuration.tree import ARGUMENTS, CLASS_PATH, PROMPT_TEXT, TOP_LEVEL_KEYS
from lightning_m2pt.methods.base import Method
from lightning_m2pt.tuning.regularisers.base import Regulariser
from lightning_m2pt.tuning.regularisers.teacher import Teacher

Schema: TypeAlias = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
BASES: dict[type, str] = {
    Method: "method",
    Backbone: "backbone",
    BenchmarkDataModule: "evaluation_set",
    DataModule: "set",
    Callback: "callback",
    Regulariser: "regulariser",
    Teacher: "teacher",
}
"""Base classes of components, and what the schema calls them; of two that fit the first counts."""
PRIMITIVES: dict[Any, Schema] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    Path: {"type": "string"},
    types.NoneType: {"type": "null"},
}
INTERPOLATION: Schema = {"type": "string", "pattern": r"\$\{"}
PART: Schema = {"type": "string", "pattern": r"\.ya?ml$", "description": "a file that holds this part"}
TOP_LEVEL: dict[str, Schema] = {
    "seed_everything": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1, "default": 0},
    "save_every_n_steps": {"type": "integer", "minimum": 1, "default": 50},
    "validate_every_n_steps": {"type": "integer", "minimum": 0, "default": 0},
    "output_root": {"type": "string", "default": "outputs"},
    PROMPT_TEXT: {"type": "string", "description": "a prompt's file: words around every question"},
}
"""Settings that are no class's: the parser's own, in ``ExperimentCLI``."""


def experiment_schema() -> Schema:
    """Returns the JSON schema (draft 2020-12) of an experiment's file."""
    groups = {key: group_schema(key, owner) for key, owner in GROUPS.items()}
    model = groups["model"]["properties"]
    for key, group in groups.items():
        parent, _, name = key.rpartition(".")
        if parent:
            absent = [{"type": "null"}] if key in MAY_BE_NULL else []
            choices = [PART, {"$ref": f"#/$defs/{key}"}, *absent]
            model[name] = {"anyOf": choices, "description": group.get("description", "")}
    evaluation_sets = {"type": "array", "items": reference("evaluation_set")}
    return {
        "$schema": DIALECT,
        "title": "An experiment of M2PT",
        "description": "Files may hold some of the keys; what several files and the command line give is put together.",
        "type": "object",
        "properties": {
            INCLUDE: {
                "anyOf": [PART, {"type": "array", "items": PART}],
                "description": "Experiments' files that are read first; this file's own keys go on top.",
            },
            **{key: {} for key in TOP_LEVEL_KEYS},
            "seed_everything": with_interpolation(TOP_LEVEL["seed_everything"]),
            "trainer": {"anyOf": [PART, {"$ref": "#/$defs/trainer"}]},
            "model": {"anyOf": [PART, {"$ref": "#/$defs/model"}]},
            "data": reference("set"),
            "benchmarks": {"anyOf": [evaluation_sets, reference("evaluation_set")]},
            "save_every_n_steps": with_interpolation(TOP_LEVEL["save_every_n_steps"]),
            "validate_every_n_steps": with_interpolation(TOP_LEVEL["validate_every_n_steps"]),
            "output_root": TOP_LEVEL["output_root"],
            PROMPT_TEXT: TOP_LEVEL[PROMPT_TEXT],
        },
        "additionalProperties": False,
        "$defs": {**groups, **component_schemas()},
    }


def component_schemas() -> Schema:
    """Returns a schema for every kind of component, and one for the arguments of every class that comes with us."""
    classes = {
        "method": shipped(catalogue.methods()),
        "backbone": shipped(catalogue.backbones()),
        "evaluation_set": shipped(catalogue.evaluation_sets()),
        "set": shipped(catalogue.sets()),
        "callback": shipped_callbacks(),
        "regulariser": shipped(catalogue.regularisers()),
        "teacher": shipped(catalogue.teachers()),
    }
    arguments = {path: group_schema(path, owner) for of_kind in classes.values() for path, owner in of_kind.items()}
    return {**arguments, **{kind: component_schema(list(of_kind)) for kind, of_kind in classes.items()}}


def component_schema(paths: Sequence[str]) -> Schema:
    """Returns the schema of a component: a class's name, a file, or a class path with arguments.

    Args:
        paths: Classes whose arguments are known; any other class is left to the parser.
    """
    chosen = [
        {
            "if": {"properties": {CLASS_PATH: {"const": path}}, "required": [CLASS_PATH]},
            "then": {"properties": {ARGUMENTS: {"$ref": f"#/$defs/{path}"}}},
        }
        for path in paths
    ]
    spelt_out = {
        "type": "object",
        "properties": {CLASS_PATH: {"anyOf": [{"enum": list(paths)}, {"type": "string"}]}, ARGUMENTS: {}},
        "allOf": chosen,
    }
    return {"anyOf": [{"type": ["string", "null"]}, spelt_out]}


def reference(kind: str) -> Schema:
    """Returns a reference to a kind of component."""
    return {"$ref": f"#/$defs/{kind}"}


def shipped(entries: Sequence[catalogue.Entry]) -> dict[str, Any]:
    """Imports classes and returns them by their paths."""
    return {
        entry.name: getattr(importlib.import_module(entry.name.rpartition(".")[0]), entry.short_name)
        for entry in entries
    }


def shipped_callbacks() -> dict[str, Any]:
    """Returns the callbacks that come with the project, by their paths."""
    found = {}
    for file in sorted(Path(callback_folders[0]).glob("*.py")):
        module = importlib.import_module(f"callbacks.{file.stem}")
        for name, value in vars(module).items():
            if inspect.isclass(value) and value.__module__ == module.__name__ and issubclass(value, Callback):
                found[f"{value.__module__}.{name}"] = value
    return found


def group_schema(key: str, owner: Any) -> Schema:
    """Returns the schema of a group's settings, or of a class's arguments; open if the class takes any.

    Args:
        key: The group, or the class's path.
        owner: The class.
    """
    described = parse_docstring(inspect.getdoc(owner) or "")
    told = {each.arg_name: " ".join((each.description or "").split()) for each in described.params}
    told |= {
        each.arg_name: " ".join((each.description or "").split())
        for each in parse_docstring(inspect.getdoc(owner.__init__) or "").params
    }
    try:
        hints = typing.get_type_hints(owner.__init__)
    except (NameError, TypeError):  # names that a library imports for type checkers only
        hints = {}
    properties, is_open = {}, False
    for name, parameter in inspect.signature(owner).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            is_open = True
            continue
        properties[name] = property_schema(hints.get(name), parameter, told.get(name, ""))
    summary = described.short_description or f"Settings of {key}."
    return {
        "description": " ".join(summary.split()),
        "type": "object",
        "properties": properties,
        "additionalProperties": is_open,
    }


def property_schema(hint: Any, parameter: inspect.Parameter, description: str) -> Schema:
    """Returns the schema of one setting."""
    schema = with_interpolation(schema_of(hint))
    has_default = parameter.default is not parameter.empty
    if has_default and isinstance(parameter.default, bool | int | float | str | None):
        schema["default"] = parameter.default
    needed = "" if has_default else "Required. "
    if needed or description:
        schema["description"] = f"{needed}{description}".strip()
    return schema


def with_interpolation(schema: Schema) -> Schema:
    """Returns a schema that also takes ``${key}`` in the value's place."""
    if not schema or schema.get("type") == "string" or "$ref" in schema:
        return dict(schema)
    default = {"default": schema["default"]} if "default" in schema else {}
    return {"anyOf": [schema, INTERPOLATION], **default}


def schema_of(hint: Any) -> Schema:
    """Returns the schema of a type; an empty one, which takes anything, where a schema cannot say what it takes."""
    if hint in PRIMITIVES:
        return dict(PRIMITIVES[hint])
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is typing.Annotated:
        return schema_of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        options = [schema_of(each) for each in arguments]
        return {"anyOf": options} if all(options) else {}
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return {"type": "object"}
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        items = schema_of(arguments[0]) if arguments else {}
        return {"type": "array", **({"items": items} if items and origin is not tuple else {})}
    if inspect.isclass(hint):
        return next((reference(kind) for base, kind in BASES.items() if issubclass(hint, base)), {})
    return {}
