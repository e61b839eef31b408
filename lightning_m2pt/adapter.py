"""The adapter folder: PEFT's layout with our own type, safetensors and JSON only.

``adapter_config.json`` names method, arguments and the frozen base by hash; ``adapter_model.safetensors`` holds the
trained tensors by their name inside the method; ``README.md`` is the model card.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_m2pt.atomic_files import write_atomically
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.base import Method
from lightning_m2pt.strict_json import parse_json

FORMAT = 1
CONFIG_FILE, TENSOR_FILE, CARD_FILE = "adapter_config.json", "adapter_model.safetensors", "README.md"


def declared_tensors(method: Method) -> dict[str, Tensor]:
    """Returns the trained tensors by name, on the CPU."""
    return {
        name: parameter.detach().cpu().contiguous()
        for tensors in method.parts().values()
        for name, parameter in tensors
    }


def save_adapter(folder: Path, method: Method, base: str, base_fingerprint: str, card: str) -> None:
    """Writes the adapter folder.

    Args:
        folder: Made if missing; existing files are replaced one by one, the configuration last.
        method: What was trained.
        base: Readable name of the frozen base.
        base_fingerprint: Its SHA-256.
        card: Text of the model card.
    """
    from safetensors.torch import save

    config = {
        "peft_type": method.name.upper(),
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "base_fingerprint": base_fingerprint,
        "format": FORMAT,
        "inference_mode": True,
        "arguments": method.adapter_config(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / TENSOR_FILE, save(declared_tensors(method)))
    write_atomically(folder / CARD_FILE, card.encode())
    write_atomically(folder / CONFIG_FILE, (json.dumps(config, indent=2) + "\n").encode())


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Reads ``adapter_config.json``.

    Raises:
        BadInputError: If it is missing or damaged.
    """
    path = folder / CONFIG_FILE
    try:
        config = parse_json(path.read_bytes(), path, expected="an adapter configuration")
    except FileNotFoundError as error:
        raise BadInputError(
            "no adapter here",
            where=str(path),
            expected="a run that was trained to the end",
            hint="run `m2pt fit` first",
        ) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise BadInputError("unknown adapter format", where=str(path), expected=f"format {FORMAT}")
    return config


def check_adapter(folder: Path, method: Method, base_fingerprint: str) -> None:
    """Compares an adapter with the method and the frozen base it shall be loaded into, before any weight is loaded.

    Raises:
        BadInputError: If base or arguments differ; the first differing key is named with both values.
    """
    config, path = read_adapter_config(folder), str(folder / CONFIG_FILE)
    if config.get("peft_type") != method.name.upper():
        raise BadInputError(
            f"adapter of method {config.get('peft_type')}", where=path, expected=f"an adapter of {method.name.upper()}"
        )
    if config.get("base_fingerprint") != base_fingerprint:
        raise BadInputError(
            f"adapter of another backbone ({str(config.get('base_fingerprint'))[:12]})",
            where=path,
            expected=f"one tuned on this backbone ({base_fingerprint[:12]})",
        )
    saved = config.get("arguments")
    if not isinstance(saved, dict):
        raise BadInputError("no arguments in here", where=path, expected="the method's arguments")
    for key, value in method.adapter_config().items():
        if saved.get(key) != value:
            raise BadInputError(
                f"{key} is {saved.get(key)} in the adapter and {value} in the configuration",
                where=path,
                expected="the same arguments",
            )


def load_adapter(folder: Path, method: Method) -> None:
    """Copies an adapter's tensors into a built method.

    Raises:
        BadInputError: If a tensor is missing, unknown, of another shape, or not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / TENSOR_FILE
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadInputError(f"cannot be read ({error})", where=str(path), expected="a safetensors file") from error
    declared = {name: parameter for parameters in method.parts().values() for name, parameter in parameters}
    if set(tensors) != set(declared):
        first = sorted(set(tensors) ^ set(declared))[0]
        raise BadInputError(
            f"tensor {first} is {'unknown to the method' if first in tensors else 'missing'}",
            where=str(path),
            expected=f"the {len(declared)} tensors of {method.name}",
        )
    for name, parameter in declared.items():
        if tensors[name].shape != parameter.shape:
            raise BadInputError(
                f"{name} has shape {tuple(tensors[name].shape)}", where=str(path), expected=f"{tuple(parameter.shape)}"
            )
        if not bool(torch.isfinite(tensors[name]).all()):
            raise BadInputError(f"{name} holds numbers that are not finite", where=str(path), expected="finite numbers")
    with torch.no_grad():
        for name, parameter in declared.items():
            parameter.copy_(tensors[name])
