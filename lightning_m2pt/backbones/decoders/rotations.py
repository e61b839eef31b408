"""The rotation of positions that a ``config.json`` asks for: the proven kinds, their numbers, how far each is one.

Two kinds change with the length of a sequence: dynamic NTK behind ``max_position_embeddings``, longrope behind
``original_max_position_embeddings``. From there on the keys of rows that have run would have to be made again, so
sequences end there. Up to that border both rotate as if there were none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_m2pt.backbones.config_values import bad_key, equal_json, is_real, one_of, real_number, shown_value

MOST_POSITIONS = 67_108_864
ALL_OF_A_HEAD = "only the rotation of all of a head's numbers in every layer is proven"
LAYER_TYPES = ("full_attention", "sliding_attention")
OUTSIDE = ("rope_theta", "original_max_position_embeddings")
"""Keys that may stand beside the rotation as well as in it."""

ROTATIONS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor", "original_max_position_embeddings"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "longrope": ("original_max_position_embeddings",),
}
"""Rotations that are proven, with the numbers each needs."""
OPTIONAL: dict[str, tuple[str, ...]] = {
    "yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
    "longrope": ("factor", "attention_factor"),
}
"""Numbers that a rotation may name."""
TABLES = ("short_factor", "long_factor")
EVERYWHERE = tuple(ROTATIONS)
"""What the library computes for every architecture."""


def usable_positions(config: Mapping[str, Any]) -> int:
    """Returns how many rows a checked configuration's model takes, all of them with one rotation."""
    positions: int = config["max_position_embeddings"]
    rotation = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if rotation.get("rope_type", rotation.get("type")) != "longrope":
        return positions
    return min(positions, int({**config, **rotation}["original_max_position_embeddings"]))


def end_of_positions(config: Mapping[str, Any]) -> str:
    """Returns why a checked configuration's model takes no more rows, as the end of a sentence."""
    if usable_positions(config) < config["max_position_embeddings"]:
        return "its longrope rotates otherwise in longer sequences (original_max_position_embeddings)"
    return "the language model knows no later position"


def check_rotation(
    config: Mapping[str, Any],
    path: Path,
    kinds: tuple[str, ...] = EVERYWHERE,
    *,
    is_partial: bool = False,
    by_layer_type: bool = False,
) -> None:
    """Looks whether the rotation of positions is a proven one, said once.

    Args:
        config: The content of a ``config.json`` whose sizes are right.
        path: The file, for messages.
        kinds: The rotations that the architecture is proven with.
        is_partial: Whether the architecture may rotate a part of a head's numbers.
        by_layer_type: Whether layers with and without a window have rotations of their own.

    Raises:
        BadInputError: If its type is not proven, a number is missing or unknown, or two places say different things.
    """
    key = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    rotation = config.get(key) or {}
    if not isinstance(rotation, dict):
        raise bad_key(path, key, f"{shown_value(rotation)} is no JSON object", "a JSON object")
    other = config.get("rope_parameters")
    if key == "rope_scaling" and other and other != rotation:
        raise bad_key(path, key, "rope_parameters says something else", "one of the two")
    if by_layer_type and any(name in LAYER_TYPES for name in rotation):
        check_layer_types(config, rotation, path, key, kinds)
        return
    check_one(config, rotation, path, key, kinds, is_partial=is_partial)


def check_layer_types(
    config: Mapping[str, Any], rotation: Mapping[str, Any], path: Path, key: str, kinds: tuple[str, ...]
) -> None:
    """Looks whether the rotation of each type of layer is a proven one.

    Raises:
        BadInputError: If one is not, or something else stands beside them.
    """
    unknown = sorted(set(rotation) - set(LAYER_TYPES))
    if unknown:
        raise bad_key(path, f"{key}.{unknown[0]!s:.40}", "this is no type of layer", " or ".join(LAYER_TYPES))
    inside = {name: value for name, value in config.items() if name not in OUTSIDE}
    for name, own in rotation.items():
        if not isinstance(own, dict):
            raise bad_key(path, f"{key}.{name}", f"{shown_value(own)} is no JSON object", "a JSON object")
        check_one(inside, own, path, f"{key}.{name}", kinds, is_partial=False)


def check_one(
    config: Mapping[str, Any],
    rotation: Mapping[str, Any],
    path: Path,
    key: str,
    kinds: tuple[str, ...],
    *,
    is_partial: bool,
) -> None:
    """Looks whether one rotation is proven and its numbers are numbers.

    Raises:
        BadInputError: If not.
    """
    kind = rotation.get("rope_type", rotation.get("type", "default"))
    if "type" in rotation and rotation["type"] != kind:
        raise bad_key(path, f"{key}.type", f"rope_type says {shown_value(kind)}", "one of the two")
    if not isinstance(kind, str) or kind not in kinds:
        what, reason = f"{shown_value(kind)} is not supported", "this rotation is not proven for this architecture"
        raise bad_key(path, f"{key}.rope_type", what, " or ".join(kinds), reason)
    outer = {name: config[name] for name in OUTSIDE if name in config}
    for name, value in outer.items():
        if name in rotation and not equal_json(rotation[name], value):
            what = f"{shown_value(rotation[name])}, but {name} is {shown_value(value)}"
            raise bad_key(path, f"{key}.{name}", what, "one number")
    numbers = {**outer, **rotation}
    real_number(numbers, f"{key}.rope_theta", path, 1e15, default=10_000.0)
    part = 1.0
    if is_partial:
        factors = {"partial_rotary_factor": config.get("partial_rotary_factor"), **rotation}
        part = real_number(factors, f"{key}.partial_rotary_factor", path, 1.0, default=1.0)
        if int(head_width(config) * part) % 2:
            what = f"{part:g} of {head_width(config)} numbers are odd"
            raise bad_key(path, f"{key}.partial_rotary_factor", what, "an even number: they are rotated in pairs")
    else:
        one_of(rotation, f"{key}.partial_rotary_factor", path, (None, 1), ALL_OF_A_HEAD)
    for name in ROTATIONS[kind]:
        real_number(numbers, f"{key}.{name}", path, MOST_POSITIONS)
    for name in OPTIONAL.get(kind, ()):
        if rotation.get(name) is not None:
            real_number(rotation, f"{key}.{name}", path, MOST_POSITIONS)
    tables = TABLES if kind == "longrope" else ()
    for name in tables:
        check_table(rotation, name, path, key, int(head_width(config) * part) // 2)
    switches = ("truncate",) if kind == "yarn" else ()
    for name in switches:
        one_of(rotation, f"{key}.{name}", path, (None, False, True), "it is a switch")
    named = {*ROTATIONS[kind], *OPTIONAL.get(kind, ()), *tables, *switches}
    unknown = sorted(set(rotation) - {"type", "rope_type", "rope_theta", "partial_rotary_factor", *named})
    if unknown:
        expected = ", ".join(sorted(named)) or "nothing more"
        raise bad_key(path, f"{key}.{unknown[0]!s:.40}", f"unknown to the rotation {kind}", expected)
    if kind == "llama3" and not numbers["low_freq_factor"] < numbers["high_freq_factor"]:
        raise bad_key(path, f"{key}.high_freq_factor", "it is not above low_freq_factor", "a larger number")


def head_width(config: Mapping[str, Any]) -> int:
    """Returns how many numbers a head has."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def check_table(rotation: Mapping[str, Any], name: str, path: Path, key: str, length: int) -> None:
    """Looks whether a rotation names a factor for each pair of a head's rotated numbers.

    Raises:
        BadInputError: If not.
    """
    factors = rotation.get(name)
    if not (
        isinstance(factors, list)
        and len(factors) == length
        and all(is_real(factor) and factor > 0 for factor in factors)
    ):
        raise bad_key(path, f"{key}.{name}", f"{shown_value(factors)} does not fit", f"{length} numbers above 0")
