"""Checks a value against the part of JSON Schema (draft 2020-12) that the project's schema uses."""

import re
from typing import Any

TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
KNOWN = {
    "$schema", "$defs", "$ref", "title", "description", "default", "type", "properties", "additionalProperties",
    "items", "anyOf", "allOf", "if", "then", "required", "enum", "const", "pattern", "minimum", "maximum",
}  # fmt: skip


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Tells whether a value fits a schema whose references lead into ``root``."""
    assert set(schema) <= KNOWN, set(schema) - KNOWN
    if "$ref" in schema and not fits(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root):
        return False
    if "type" in schema and not any(is_of(value, name) for name in as_list(schema["type"])):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        return False
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return False
    if "anyOf" in schema and not any(fits(value, each, root) for each in schema["anyOf"]):
        return False
    if not all(fits(value, each, root) for each in schema.get("allOf", [])):
        return False
    if "if" in schema and fits(value, schema["if"], root) and not fits(value, schema["then"], root):
        return False
    if isinstance(value, list):
        return all(fits(item, schema.get("items", {}), root) for item in value)
    return not isinstance(value, dict) or fits_object(value, schema, root)


def fits_object(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Tells whether an object's keys and values fit."""
    properties = schema.get("properties", {})
    is_open = schema.get("additionalProperties", True)
    if not set(schema.get("required", [])) <= set(value) or not (is_open or set(value) <= set(properties)):
        return False
    return all(fits(inner, properties.get(name, {}), root) for name, inner in value.items())


def is_of(value: Any, name: str) -> bool:
    """Tells whether a value is of a type; true and false are no numbers."""
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def as_list(value: Any) -> list[Any]:
    """Returns a list of one for what is no list."""
    return value if isinstance(value, list) else [value]
