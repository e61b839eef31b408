"""Reading the files of an open_clip tower and a Llama-form model: sizes from configurations, tensors into modules."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_m2pt.backbones.base import BackboneShape
from lightning_m2pt.errors import BadInputError


def read_json(path: Path, key: str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        BadInputError: If the file is missing or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        guides = [folder / "README.md" for folder in path.parents[:2] if (folder / "README.md").is_file()]
        raise BadInputError(
            f"{path} cannot be read ({error.strerror})",
            where=key,
            expected="a JSON file",
            hint=f"{guides[0]} says how to get it" if guides else "",
        ) from error
    except ValueError as error:
        raise BadInputError(f"{path} is not JSON ({error})", where=key, expected="a JSON file") from error
    if not isinstance(content, dict):
        raise BadInputError(f"{path} holds no JSON object", where=key, expected="an object")
    return content


def shape_of(
    open_clip: dict[str, Any], llama: dict[str, Any], vision_file: Path, language_folder: Path
) -> BackboneShape:
    """Reads the sizes from both configurations.

    Raises:
        BadInputError: If one of the needed keys is missing.
    """
    try:
        vision, preprocess = open_clip["model_cfg"]["vision_cfg"], open_clip["preprocess_cfg"]
        return BackboneShape(
            vision_layers=vision["layers"],
            vision_width=vision["width"],
            patches=(vision["image_size"] // vision["patch_size"]) ** 2,
            patch_size=vision["patch_size"],
            image_size=vision["image_size"],
            image_mean=tuple(preprocess["mean"]),
            image_std=tuple(preprocess["std"]),
            interpolation=preprocess.get("interpolation", "bicubic"),
            resize="squash" if preprocess.get("resize_mode") == "squash" else "shortest_edge",
            text_layers=llama["num_hidden_layers"],
            text_width=llama["hidden_size"],
            text_heads=llama["num_attention_heads"],
            text_key_value_heads=llama.get("num_key_value_heads") or llama["num_attention_heads"],
            text_head_width=llama.get("head_dim") or llama["hidden_size"] // llama["num_attention_heads"],
            vocabulary_size=llama["vocab_size"],
            maximum_positions=llama["max_position_embeddings"],
        )
    except KeyError as error:
        place = language_folder / "config.json" if error.args[0] in llama_keys() else vision_file
        raise BadInputError(f"key {error} is missing", where=str(place), expected="a complete configuration") from error


def llama_keys() -> set[str]:
    """Returns the keys of a Llama configuration that the shape needs."""
    return {"num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size", "max_position_embeddings"}


def load_all(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Loads tensors into a module built on the meta device.

    Raises:
        BadInputError: If a tensor is missing, unknown or of another shape.
    """
    try:
        module.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise BadInputError(reason, where=str(path), expected="the tensors the configuration describes") from error


def sha256_of(files: Sequence[Path]) -> str:
    """Returns the SHA-256 over the files' own, in this order."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
