"""What an adapter's configuration says of its tensor file, and the comparison with the file itself."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_m2pt.backbones.weight_files import stored_tensors
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.file_hashes import read_and_hash

TENSORS, DIGEST = "tensors", "tensors_sha256"
"""Keys of an adapter's configuration: type and shape of each tensor, and the SHA-256 of their file."""
CONFIG_DIGEST = "config_sha256"
"""Key of the SHA-256 of all that the configuration says besides."""
LAST_WITHOUT_DIGEST = 2
"""The last format whose configuration has no digest of its own."""
FIRST_FORMAT_DTYPE = "F32"
"""The type of all tensors in adapters of format 1, which say nothing of their tensors."""


def manifest_of(content: bytes) -> dict[str, Any]:
    """Returns what the configuration says of a tensor file with this content."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    tensors = {
        name: {"dtype": entry["dtype"], "shape": entry["shape"]}
        for name, entry in header.items()
        if name != "__metadata__"
    }
    return {TENSORS: tensors, DIGEST: hashlib.sha256(content).hexdigest()}


def config_digest(config: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of what a configuration says, the digest itself left out and whatever its keys' order."""
    said = {key: value for key, value in config.items() if key != CONFIG_DIGEST}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def check_configuration(path: Path, config: Mapping[str, Any]) -> None:
    """Compares a configuration with its own digest: what no tensor shows, such as LoRA's alpha, decides answers.

    Args:
        path: Its file.
        config: What it says.

    Raises:
        BadInputError: If it says something else than when it was written.
    """
    if config["format"] > LAST_WITHOUT_DIGEST and config.get(CONFIG_DIGEST) != config_digest(config):
        raise BadInputError(
            "it is not what was saved: something in it was changed",
            where=str(path),
            expected=f"what {CONFIG_DIGEST} is of",
            hint="get the adapter again from where it comes, or tune again",
        )


def check_tensor_file(path: Path, config: Mapping[str, Any]) -> None:
    """Compares an adapter's tensor file with its configuration; no tensor is loaded.

    Args:
        path: The file.
        config: The adapter's configuration; of format 1, it says nothing of the file.

    Raises:
        BadInputError: If the file is missing or damaged, or holds tensors of another type or shape.
    """
    found = {name: (one.dtype, list(one.shape)) for name, one in stored_tensors(path).items()}
    if config["format"] == 1:
        for name, (dtype, _) in found.items():
            if dtype != FIRST_FORMAT_DTYPE:
                raise BadInputError(f"{name} is of type {dtype}", where=str(path), expected=FIRST_FORMAT_DTYPE)
        return
    recorded = config.get(TENSORS)
    if not isinstance(recorded, dict) or not all(isinstance(entry, dict) for entry in recorded.values()):
        raise BadInputError("it does not say which tensors there are", where=str(path.parent), expected=f"{TENSORS!r}")
    expected = {name: (entry.get("dtype"), entry.get("shape")) for name, entry in recorded.items()}
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            raise BadInputError(
                f"tensor {name} is {type_and_shape(found.get(name))}",
                where=str(path),
                expected=f"{type_and_shape(expected.get(name))}, as the adapter's configuration says",
                hint="get the adapter again from where it comes, or tune again",
            )
    digest = read_and_hash(path)
    if digest != config.get(DIGEST):
        raise BadInputError(
            f"its content is not what was saved (SHA-256 {digest[:12]})",
            where=str(path),
            expected=f"SHA-256 {str(config.get(DIGEST))[:12]}, as the adapter's configuration says",
            hint="get the adapter again from where it comes, or tune again",
        )


def type_and_shape(entry: tuple[Any, Any] | None) -> str:
    """Returns type and shape in words."""
    return "missing" if entry is None else f"{entry[0]} {entry[1]}"


def refuse_other_shapes(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]] | None) -> None:
    """Refuses to save what the process does not have whole, as it is with strategies that share weights out.

    Args:
        tensors: What shall be saved, by name.
        shapes: The shapes that were built; None if the method was not built by the module.

    Raises:
        BadInputError: If a tensor is empty or of another shape; the first is named.
    """
    for name, tensor in tensors.items():
        expected = tuple(tensor.shape) if shapes is None else shapes.get(name)
        if not tensor.numel() or tuple(tensor.shape) != expected:
            raise BadInputError(
                f"{name} has shape {tuple(tensor.shape)} in this process, so no adapter is saved",
                where="trainer.strategy",
                expected=f"shape {expected}, as it was built" if expected else "the tensors that were built",
                hint="take a strategy that leaves every process the whole of the trained tensors, such as ddp",
            )
