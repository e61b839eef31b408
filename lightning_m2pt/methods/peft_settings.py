"""Which of peft's tuners keep the contract of methods, and which of their settings decide something in it.

Every tuner stands here with peft's own names and defaults. A setting that is not here is refused by name: peft takes
many that do nothing to a layer by itself, train something beside it, or are not tried.
"""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.argument_checks import MOST

LORA = "lora"
NAME = re.compile(r"\w+(?:\.\w+)*", re.ASCII)
"""A layer's name or its last steps; no regular expression, of which peft runs whatever it is given."""
STARTS: tuple[bool | str, ...] = (True, False, "gaussian", "orthogonal", "pissa", "olora")
"""Of ``init_lora_weights``. Others read data, leave a factor frozen, or draw what is subtracted from the base."""
CHANGE_BASE = ("pissa", "olora")
"""Starts whose product is subtracted from the frozen weight, so that the first pass is the untouched model's."""
REASONS = MappingProxyType(
    {
        "bias": "biases of the base stay frozen",
        "modules_to_save": "what is trained is a part of the method; interaction: true trains the projector",
        "task_type": "peft does not look at it where it puts layers into a model",
        "inference_mode": "training and evaluation decide what has gradients",
        "fan_in_fan_out": "the layers are linear ones",
        "rank_dropout": "peft's layers follow the frozen model, which is never in training mode",
        "module_dropout": "peft's layers follow the frozen model, which is never in training mode",
        "trainable_token_indices": "word embeddings are no linear layers",
        "target_parameters": "layers are named, not tensors",
        "layers_pattern": "layers are counted where their names have the first number",
        "lora_bias": "the base's linear layers have no bias that it could be merged into",
        "loftq_config": "it starts from a base that is quantised in another way",
    }
)


@dataclass(frozen=True)
class Setting:
    """One setting of a tuner.

    Attributes:
        default: peft's own.
        fits: Tells whether a value can be one.
        expected: What values there are, in words.
    """

    default: Any
    fits: Callable[[Any], bool]
    expected: str


def whole(default: int, least: int = 1) -> Setting:
    """Returns a setting of a whole number."""
    return Setting(default, lambda value: is_whole(value, least), f"a whole number from {least} to {MOST:,}")


def flag(default: bool) -> Setting:
    """Returns a setting that is on or off."""
    return Setting(default, lambda value: isinstance(value, bool), "true or false")


def positive(default: float) -> Setting:
    """Returns a setting of a number above zero."""
    return Setting(default, is_positive, "a number above 0")


def names() -> Setting:
    """Returns a setting of names of layers."""
    return Setting(None, lambda value: value is None or are_names(value), "a list of names of layers, or null")


def by_name(fits: Callable[[Any], bool], what: str) -> Setting:
    """Returns a setting of values by names of layers."""
    return Setting(
        {},
        lambda value: (
            isinstance(value, Mapping) and (not value or are_names(list(value))) and all(map(fits, value.values()))
        ),
        f"{what} by names of layers",
    )


def is_whole(value: object, least: int) -> bool:
    """Tells whether a value is a whole number from ``least`` on that a model could have."""
    return type(value) is int and least <= value <= MOST


def is_positive(value: object) -> bool:
    """Tells whether a value is a finite number above zero."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max


def is_probability(value: object) -> bool:
    """Tells whether a value is a probability below one."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def is_start(value: object) -> bool:
    """Tells whether a value is a start of LoRA's factors that is kept here; 1 is not true."""
    return any(type(value) is type(each) and value == each for each in STARTS)


def are_names(value: object) -> bool:
    """Tells whether a value is a list of names of layers, each once."""
    if not isinstance(value, list) or not value or len(set(map(str, value))) < len(value):
        return False
    return all(isinstance(each, str) and NAME.fullmatch(each) is not None for each in value)


def are_numbers(value: object) -> bool:
    """Tells whether a value is a list of numbers of layers."""
    return isinstance(value, list) and bool(value) and all(is_whole(each, 0) for each in value)


TARGETS = {"target_modules": names(), "exclude_modules": names()}
LAYERS = {
    "layers_to_transform": Setting(
        None, lambda value: value is None or are_numbers(value), "a list of numbers, or null"
    )
}
RANKS = {"rank_pattern": by_name(lambda value: is_whole(value, 1), "ranks")}
ALPHAS = {"alpha_pattern": by_name(is_positive, "numbers above 0")}
STARTS_AS_BASE = {"init_weights": flag(True)}

TUNERS: Mapping[str, Mapping[str, Setting]] = MappingProxyType(
    {
        LORA: {
            "r": whole(8),
            "lora_alpha": positive(8),
            "lora_dropout": Setting(0.0, is_probability, "a probability below 1"),
            "use_rslora": flag(False),
            "use_dora": flag(False),
            "init_lora_weights": Setting(True, is_start, " or ".join(map(str, STARTS)).lower()),
            **TARGETS,
            **LAYERS,
            **RANKS,
            **ALPHAS,
        },
        "ia3": {
            "feedforward_modules": Setting([], lambda value: value == [] or are_names(value), "a list of names"),
            "init_ia3_weights": flag(True),
            **TARGETS,
        },
        "loha": {"r": whole(8), "alpha": positive(8), **STARTS_AS_BASE, **TARGETS, **LAYERS, **RANKS, **ALPHAS},
        "lokr": {
            "r": whole(8),
            "alpha": positive(8),
            "decompose_both": flag(False),
            "decompose_factor": Setting(-1, lambda value: value == -1 or is_whole(value, 1), "-1, or 1 or more"),
            **STARTS_AS_BASE,
            **TARGETS,
            **LAYERS,
            **RANKS,
            **ALPHAS,
        },
        "oft": {
            "r": whole(0, 0),
            "oft_block_size": whole(32, 0),
            "coft": flag(False),
            "eps": positive(6e-5),
            "block_share": flag(False),
            "use_cayley_neumann": flag(True),
            "num_cayley_neumann_terms": whole(5, 2),
            **STARTS_AS_BASE,
            **TARGETS,
            **LAYERS,
        },
        "hra": {"r": whole(8), "apply_GS": flag(False), **STARTS_AS_BASE, **TARGETS, **LAYERS},
    }
)
"""The settings of each tuner: those it has with peft, but for what is refused."""


def checked_settings(tuner: str, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns all settings of a tuner, the given ones and peft's defaults.

    Args:
        tuner: One of ``TUNERS``.
        given: By peft's names.
        where: The argument that they stand in, such as ``settings``.

    Raises:
        BadInputError: Naming the first that is unknown here, or has a value that it cannot have.
    """
    known, place = TUNERS[tuner], f"model.method.{where}"
    for name, value in given.items():
        if name not in known:
            reason = REASONS.get(name, f"{tuner} has no such setting, or none that is tried here")
            raise BadInputError(
                f"{name!a:.40} is not taken: {reason}", where=f"{place}.{name!s:.40}", expected=", ".join(known)
            )
        if not known[name].fits(value):
            raise BadInputError(f"{name} is {value!r:.60}", where=f"{place}.{name}", expected=known[name].expected)
    settings = {name: given.get(name, setting.default) for name, setting in known.items()}
    refuse_combinations(settings, place)
    return settings


def refuse_combinations(settings: Mapping[str, Any], place: str) -> None:
    """Refuses settings that would do nothing beside each other.

    Raises:
        BadInputError: Naming one of them.
    """
    if settings.get("use_dora") and settings["lora_dropout"]:
        raise BadInputError(
            "peft's DoRA drops only where the frozen model is in training mode, which it never is",
            where=f"{place}.lora_dropout",
            expected="0 beside use_dora",
        )
    start = settings.get("init_lora_weights")
    if start in CHANGE_BASE and settings["use_dora"]:
        raise BadInputError(
            f"{start} changes the weight that DoRA takes the length of, which is not tried",
            where=f"{place}.init_lora_weights",
            expected="true, false, gaussian or orthogonal beside use_dora",
        )
    if settings.get("apply_GS") and settings["init_weights"]:
        raise BadInputError(
            "the start has every vector twice, and what Gram-Schmidt makes of a second one is no number",
            where=f"{place}.apply_GS",
            expected="false, or init_weights: false",
        )
    if "oft_block_size" in settings and bool(settings["r"]) == bool(settings["oft_block_size"]):
        raise BadInputError(
            f"r is {settings['r']} and oft_block_size {settings['oft_block_size']}: one says what the other is",
            where=f"{place}.r",
            expected="one of them, and 0 for the other",
        )
