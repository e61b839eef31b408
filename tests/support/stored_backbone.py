"""A tiny backbone as files: configurations, safetensors and a word tokenizer, to be loaded or spoiled."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.testing.random_backbone import random_backbone
from lightning_m2pt.testing.small_processor import word_tokenizer

TOWER_CONFIG, TOWER, PROJECTOR = "vision/open_clip_config.json", "vision/tower.safetensors", "projector.safetensors"
CONFIG, WEIGHTS = "language/config.json", "language/model.safetensors"
INDEX = "language/model.safetensors.index.json"


def store_backbone(folder: Path, language: dict[str, Any] | None = None) -> OpenClipLlama:
    """Writes a backbone of random weights below a folder; returns it as it was built."""
    (folder / "vision").mkdir(parents=True)
    (folder / "language").mkdir()
    backbone = random_backbone(folder, language=language)
    (folder / "open_clip_config.json").rename(folder / TOWER_CONFIG)
    (folder / "config.json").rename(folder / CONFIG)
    tower = {f"visual.{name}": tensor for name, tensor in backbone.vision_tower.state_dict().items()}
    save_file({**tower, "logit_scale": torch.ones(())}, folder / TOWER)
    tensors = backbone.language_model.state_dict()
    if backbone.language_model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    save_file(tensors, folder / WEIGHTS)
    save_file(backbone.projector.state_dict(), folder / PROJECTOR)
    word_tokenizer().save_pretrained(str(folder / "language"))
    return backbone


def stored(folder: Path, dtype: Any = "float32") -> OpenClipLlama:
    """Returns the backbone that a folder holds, not loaded."""
    language = str(folder / "language")
    return OpenClipLlama(
        str(folder / TOWER_CONFIG), str(folder / TOWER), language, language, str(folder / PROJECTOR), dtype
    )


def change_tensors(file: str, change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    """Returns what changes the tensors of one file below a folder; ``change`` may return other tensors."""

    def spoil(folder: Path) -> None:
        tensors = load_file(folder / file)
        changed = change(tensors)
        save_file(changed if isinstance(changed, dict) else tensors, folder / file, metadata={"format": "pt"})

    return spoil


def change_json(file: str, *keys: str, value: Any) -> Callable[[Path], None]:
    """Returns what sets one key of a JSON file below a folder."""

    def spoil(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        (folder / file).write_text(json.dumps(content))

    return spoil


def shard(folder: Path) -> None:
    """Replaces the single file by two shards and their index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    files = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    parts = [dict(list(tensors.items())[:10]), dict(list(tensors.items())[10:])]
    for file, part in zip(files, parts, strict=True):
        save_file(part, folder / "language" / file)
    places = {name: file for file, part in zip(files, parts, strict=True) for name in part}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))


def put(name: str, make: Callable[[dict[str, Tensor]], Tensor]) -> Callable[[dict[str, Tensor]], None]:
    """Returns a change of tensors that puts one under a name."""
    return lambda tensors: tensors.update({name: make(tensors)})


def change_bytes(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Returns what changes the bytes of one file below a folder."""

    def spoil(folder: Path) -> None:
        (folder / file).write_bytes(change((folder / file).read_bytes()))

    return spoil
