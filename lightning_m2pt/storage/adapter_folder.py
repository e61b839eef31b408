"""The adapter folder: PEFT's layout with our own type, safetensors and JSON only.

``adapter_config.json`` names method, arguments and the frozen base by hash, since format 2 the base's type, the
template, and every tensor's type, shape and the hash of all, and since format 3 where the base comes from, the whole
template and how pictures are read; ``adapter_model.safetensors`` holds the trained tensors by their name inside the
method; ``README.md`` is the model card. No path of the machine that wrote it stands in any of them.
"""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_m2pt.backbones.origins.said import BaseOrigin
from lightning_m2pt.backbones.weight_files import opened
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.methods.base import Method
from lightning_m2pt.storage.adapter_base import AdapterBase
from lightning_m2pt.storage.adapter_manifest import (
    CONFIG_DIGEST,
    check_configuration,
    check_tensor_file,
    config_digest,
    manifest_of,
    refuse_other_shapes,
)
from lightning_m2pt.storage.adapter_template import CONTENT
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.strict_json import parse_json

FORMAT = 3
READABLE_FORMATS = (1, 2, 3)
MOST_BYTES = 4_000_000
"""Of a configuration: one that names every tensor of a large model has a twentieth."""
QUANTIZATION, TEMPLATE_DIGEST = "base_quantization", "template_sha256"
CHOSEN = "chosen"
"""Key of the step that an adapter is of, and of the number that it was chosen by; those of a last step lack it."""
BASE, PICTURES = "base", "pictures"
"""Keys of where the base comes from, and of how it reads pictures."""
TUNED = "tuned"
"""Key of the steps and the seed of its tuning."""
CONVERTED_FROM = "converted_from"
"""Key of what an adapter was made of that nobody tuned here: the file's name and its SHA-256."""
CONFIG_FILE, TENSOR_FILE, CARD_FILE = "adapter_config.json", "adapter_model.safetensors", "README.md"


def declared_tensors(method: Method) -> dict[str, Tensor]:
    """Returns the trained tensors by name, on the CPU."""
    return {name: parameter.detach().cpu().contiguous() for name, parameter in method.named_tensors().items()}


def save_adapter(
    folder: Path,
    method: Method,
    base: AdapterBase,
    card: str,
    *,
    template: str | None = None,
    template_sha256: str = "",
    chosen: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    converted_from: Mapping[str, str] | None = None,
    content_of_template: Mapping[str, Any] | None = None,
    tuned: Mapping[str, int] | None = None,
) -> None:
    """Writes the adapter folder.

    Args:
        folder: Made if missing; existing files are replaced one by one, the configuration last.
        method: What was trained.
        base: What it says of the frozen base.
        card: Text of the model card.
        template: Name of the conversation template it was tuned with.
        template_sha256: Digest of that template's text; empty where the name says everything.
        chosen: ``step``, ``steps``, ``by`` and ``value`` of an adapter that is not of the last step.
        tensors: What was trained, by name; None takes the method's tensors as they are.
        converted_from: What it was made of, if it was not tuned on this base: the file's name and SHA-256.
        content_of_template: What the template says, where its name does not.
        tuned: ``steps`` and ``seed`` of its tuning.

    Raises:
        BadInputError: If a tensor is not of the shape that was built.
    """
    from safetensors.torch import save

    trained = declared_tensors(method) if tensors is None else dict(tensors)
    refuse_other_shapes(trained, method.built_shapes)
    content = save(trained)
    config: dict[str, Any] = {
        "peft_type": method.name.upper(),
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        BASE: (base.origin or BaseOrigin()).said(),
        "base_fingerprint": base.fingerprint,
        "base_dtype": base.dtype,
        **({QUANTIZATION: base.quantization} if base.quantization is not None else {}),
        "template": template,
        **({TEMPLATE_DIGEST: template_sha256} if template_sha256 else {}),
        **({CONTENT: dict(content_of_template)} if content_of_template else {}),
        **({PICTURES: dict(base.pictures)} if base.pictures else {}),
        **({CHOSEN: dict(chosen)} if chosen else {}),
        **({TUNED: dict(tuned)} if tuned else {}),
        **({CONVERTED_FROM: dict(converted_from)} if converted_from else {}),
        "format": FORMAT,
        "written_by": f"lightning_m2pt {version('lightning_m2pt')}",
        "inference_mode": True,
        "arguments": method.adapter_config(),
        **manifest_of(content),
    }
    config[CONFIG_DIGEST] = config_digest(config)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / TENSOR_FILE, content)
    write_atomically(folder / CARD_FILE, card.encode())
    write_atomically(folder / CONFIG_FILE, (json.dumps(config, indent=2) + "\n").encode())


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Reads ``adapter_config.json``.

    Raises:
        BadInputError: If it is missing or damaged.
    """
    path = folder / CONFIG_FILE
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadInputError("far too large", where=str(path), expected=f"at most {MOST_BYTES:,} bytes")
        config = parse_json(path.read_bytes(), path, expected="an adapter configuration")
    except FileNotFoundError as error:
        raise BadInputError(
            "no adapter here",
            where=str(path),
            expected="a run that was trained to the end",
            hint="run `m2pt fit` first",
        ) from error
    if isinstance(config, dict) and "format" not in config and isinstance(config.get("peft_type"), str):
        raise BadInputError(
            f"an adapter that PEFT wrote ({config['peft_type']!r:.40})",
            where=str(path),
            expected="an adapter of this project",
            hint=f"m2pt convert {folder} --base BASE --template NAME --output DIR makes DIR/adapter of it",
        )
    if (
        not isinstance(config, dict)
        or type(config.get("format")) is not int
        or config["format"] not in READABLE_FORMATS
    ):
        raise BadInputError("unknown adapter format", where=str(path), expected=f"format 1 to {FORMAT}")
    return config


def check_adapter(
    folder: Path,
    method: Method,
    base_fingerprint: str,
    former_fingerprint: str | None = None,
    quantization: str | None = None,
) -> None:
    """Compares an adapter with the method and the frozen base it shall be loaded into, before any weight is loaded.

    Args:
        folder: The adapter's folder.
        method: Not built yet.
        base_fingerprint: Names the base.
        former_fingerprint: Names it for adapters that were made before the fingerprint had a version.
        quantization: How the base's weights are packed, if they are.

    Raises:
        BadInputError: If base or arguments differ, the first differing key is named with both values, or if the tensor
            file is not what the adapter's configuration says.
    """
    config, path = read_adapter_config(folder), str(folder / CONFIG_FILE)
    if config.get("peft_type") != method.name.upper():
        raise BadInputError(
            f"adapter of method {config.get('peft_type')}", where=path, expected=f"an adapter of {method.name.upper()}"
        )
    if config.get(QUANTIZATION) != quantization:
        raise BadInputError(
            f"tuned on a base in {packing(config.get(QUANTIZATION))}, which is in {packing(quantization)} now",
            where=path,
            expected="the base it was tuned on: packing changes every number",
            hint=f"--model.backbone.quantization {config.get(QUANTIZATION) or 'null'}",
        )
    if config.get("base_fingerprint") not in (base_fingerprint, former_fingerprint or base_fingerprint):
        raise BadInputError(
            f"adapter of another backbone ({str(config.get('base_fingerprint'))[:15]})",
            where=path,
            expected=f"one tuned on this backbone ({base_fingerprint[:15]})",
        )
    saved = config.get("arguments")
    if not isinstance(saved, dict):
        raise BadInputError("no arguments in here", where=path, expected="the method's arguments")
    wanted = method.adapter_config()
    for key, default in method.later_arguments.items():
        if (key in saved) != (key in wanted):
            saved, wanted = {key: default, **saved}, {key: default, **wanted}
    if unknown := sorted(set(saved) - set(wanted)):
        raise BadInputError(
            f"{method.name} has no argument {unknown[0]}", where=path, expected=f"{', '.join(wanted)} and no others"
        )
    for key, value in wanted.items():
        if saved.get(key) != value:
            raise BadInputError(
                f"{key} is {saved.get(key)} in the adapter and {value} in the configuration",
                where=path,
                expected="the same arguments",
                hint=method.hints.get(key, ""),
            )
    check_tensor_file(folder / TENSOR_FILE, config)
    check_configuration(folder / CONFIG_FILE, config)


def packing(quantization: object) -> str:
    """Returns how a base's weights are packed, as people read it."""
    return "its own type" if quantization is None else str(quantization)


def load_adapter(folder: Path, method: Method) -> None:
    """Copies an adapter's tensors into a built method.

    Raises:
        BadInputError: If a tensor is missing, unknown, of another shape or type, or not finite.
    """
    path, declared = folder / TENSOR_FILE, method.named_tensors()
    tensors = read_tensors(path)
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
        if tensors[name].dtype != parameter.dtype:
            raise BadInputError(f"{name} is {tensors[name].dtype}", where=str(path), expected=f"{parameter.dtype}")
        if not bool(torch.isfinite(tensors[name]).all()):
            raise BadInputError(f"{name} holds numbers that are not finite", where=str(path), expected="finite numbers")
    with torch.no_grad():
        for name, parameter in declared.items():
            parameter.copy_(tensors[name])


def refuse_unless_saved(folder: Path, method: Method, tensors: Mapping[str, Tensor] | None = None) -> None:
    """Reads an adapter back from disk and compares it with what was saved.

    Args:
        folder: The adapter's folder.
        method: What was trained.
        tensors: What was saved instead of the method's tensors as they are.

    Raises:
        BadInputError: If the files are damaged.
        EnvironmentFailure: If they hold other numbers than the method.
    """
    check_tensor_file(folder / TENSOR_FILE, read_adapter_config(folder))
    found, saved = read_tensors(folder / TENSOR_FILE), declared_tensors(method) if tensors is None else tensors
    differing = [name for name, tensor in saved.items() if name not in found or not torch.equal(found[name], tensor)]
    if differing or set(found) != set(saved):
        raise EnvironmentFailure(
            f"{[*differing, *sorted(set(found) - set(saved))][0]} does not read back as it was trained",
            where=str(folder / TENSOR_FILE),
            expected="the trained tensors, all numbers finite",
            hint="the same command goes on from the last checkpoint",
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a file by name.

    Raises:
        BadInputError: If it cannot be read.
    """
    with opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
