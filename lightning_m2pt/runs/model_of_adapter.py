"""An adapter's model from its folder alone, where it says its base: no data module, no Trainer, no checkout."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_m2pt.backbones.origins.made import (
    DTYPES,
    constructor_arguments,
    origin_in,
    refuse_packing,
    refuse_unknown_form,
)
from lightning_m2pt.backbones.origins.said import EMBEDDED_FILES, NAME, OURS
from lightning_m2pt.configuration.allowed_imports import check_opened
from lightning_m2pt.configuration.paths import EMBEDDED
from lightning_m2pt.configuration.tree import ARGUMENTS, CLASS_PATH
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.runs.adapter_method import adapter_method
from lightning_m2pt.runs.adapter_settings import RATES, class_path, method_settings, require_config, text_of
from lightning_m2pt.runs.model_of_run import made, sorted_words
from lightning_m2pt.storage.adapter_folder import CONFIG_FILE, QUANTIZATION, read_adapter_config
from lightning_m2pt.tuning.module import TuningModule

BACKBONE, DTYPE = "model.backbone", "base_dtype"


def base_component(adapter: Path) -> dict[str, Any] | None:
    """Returns an adapter's base as a configuration has it; None if the adapter does not say where it is.

    Args:
        adapter: The adapter's folder.

    Raises:
        BadInputError: If it is no adapter, says something that no adapter does, or its base is not on this machine.
    """
    config, where = read_adapter_config(adapter), str(adapter / CONFIG_FILE)
    origin = origin_in(config, where)
    if origin.kind == "files":
        return None
    arguments: dict[str, Any]
    if origin.kind == "embedded":
        base = EMBEDDED / origin.arguments[NAME]
        arguments = {argument: str(base / place) for argument, place in EMBEDDED_FILES.items()}
    else:
        arguments = constructor_arguments(origin)
    recorded = {"dtype": config.get(DTYPE), "quantization": config.get(QUANTIZATION)}
    said = {name: value for name, value in recorded.items() if value is not None}
    packing, places = said.get("quantization"), (f"{where}: {DTYPE}", f"{where}: {QUANTIZATION}")
    refuse_unknown_form(said.get("dtype", DTYPES[0]), packing, places=places)  # they become words of a configuration
    refuse_packing(origin, packing, places[1])
    arguments |= said
    return {CLASS_PATH: f"{OURS[origin.class_name]}.{origin.class_name}", ARGUMENTS: arguments}


def method_component(method: Method) -> dict[str, Any]:
    """Returns a method as a configuration has it, arguments that decide no tensor left at their defaults."""
    arguments: Mapping[str, Any] = method.adapter_config()
    if isinstance(method, Combined):
        arguments = {"methods": [method_component(member) for member in method.methods()]}
    return {CLASS_PATH: class_path(type(method)), ARGUMENTS: dict(arguments)}


def words_of_adapter(adapter: Path, words: Sequence[str]) -> list[str]:
    """Returns what stands in front of a command line's words in the place of an experiment that nobody named.

    Args:
        adapter: The adapter's folder.
        words: The command line's; ``--model.backbone`` may say the base of an adapter that does not.

    Raises:
        BadInputError: If nothing says where the base is, or the method is none of the library's.
    """
    base = base_component(adapter)
    if base is None and not any(word.startswith(f"--{BACKBONE}") for word in words):
        require_config(words, adapter)
    adapter_method(read_adapter_config(adapter), str(adapter / CONFIG_FILE))
    said = base or {CLASS_PATH: None, ARGUMENTS: {}}
    named = [f"--{BACKBONE}={said[CLASS_PATH]}"] if base else []
    arguments = [f"--{BACKBONE}.{name}={text_of(value)}" for name, value in said[ARGUMENTS].items()]
    return [*named, *arguments, *method_settings(adapter)]


def model_of_adapter(adapter: Path, words: Sequence[str] = ()) -> TuningModule | None:
    """Makes an adapter's backbone and method; no weights are loaded. None if the adapter does not say its base.

    Args:
        adapter: The adapter's folder.
        words: What the command line sets on top: ``--model.KEY VALUE`` and ``--allow-import PACKAGE``.

    Raises:
        BadInputError: If the adapter is damaged, or a word sets something else.
    """
    base = base_component(adapter)
    if base is None:
        return None
    settings, opened = sorted_words([f"--{RATES}", *words])
    check_opened(opened)
    method = adapter_method(read_adapter_config(adapter), str(adapter / CONFIG_FILE))
    model = made({"backbone": base, "method": method_component(method)}, settings, opened)
    model.check()
    return model
