"""Stage 6: the finished backbone as ordinary files, with its card and its training record."""

import importlib.metadata
import os
import platform
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.backbone_recipe.architecture import RecipeModel, open_clip_configuration
from experiments.backbone_recipe.gates import GateReport
from experiments.backbone_recipe.model_card import model_card
from experiments.backbone_recipe.settings import RECIPE_VERSION, RecipeSettings
from experiments.backbone_recipe.stage_files import StageRecord, sha256_of, write_json, write_tensors, write_text
from experiments.testbed.world_version import WORLD_VERSION

VISION_PREFIX = "visual."
TRAINING_RECORD = "training.json"
CARD = "README.md"
SHIPPED_MODE = 0o644
VERSIONED_PACKAGES = ("torch", "transformers", "open_clip_torch", "tokenizers", "numpy", "scikit-learn", "safetensors")


@dataclass(frozen=True)
class RecipeResult:
    """What the recipe did: its stages, its gates, and the recorded losses of its shortened form."""

    settings: RecipeSettings
    stages: list[StageRecord]
    gates: GateReport
    shortened: Mapping[str, list[dict[str, float]]]


def machine_description() -> dict[str, Any]:
    """Returns what decides speed and last digits: processor, cores, system."""
    return {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _processor_name() -> str:
    description = Path("/proc/cpuinfo")
    if description.exists():
        for line in description.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write_weights(backbone: RecipeModel, folder: Path, settings: RecipeSettings) -> None:
    """Writes the three parts and the tokenizer in their libraries' own forms."""
    vision, language, projector = folder / "vision", folder / "language", folder / "projector"
    for part in (vision, projector):
        part.mkdir(parents=True)
    write_json(
        vision / "open_clip_config.json", open_clip_configuration(settings.architecture, len(backbone.tokenizer))
    )
    state = backbone.vision.state_dict()
    write_tensors(
        vision / "open_clip_model.safetensors", {VISION_PREFIX + name: tensor for name, tensor in state.items()}
    )
    backbone.language.generation_config.do_sample = False
    backbone.language.save_pretrained(language)
    backbone.tokenizer.save_pretrained(language)
    write_tensors(projector / "model.safetensors", backbone.projector.state_dict())


def training_record(result: RecipeResult, files: Mapping[str, str]) -> dict[str, Any]:
    """Returns the content of ``training.json``."""
    return {
        "recipe_version": RECIPE_VERSION,
        "world_version": WORLD_VERSION,
        "settings": asdict(result.settings),
        "stages": [asdict(stage) for stage in result.stages],
        "gates": result.gates.as_json(),
        "shortened": dict(result.shortened),
        "machine": machine_description(),
        "versions": {package: importlib.metadata.version(package) for package in VERSIONED_PACKAGES},
        "files": dict(files),
    }


def export_backbone(backbone: RecipeModel, result: RecipeResult, output: Path) -> None:
    """Writes everything into a folder: first beside it, then moved file by file, the training record last."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f"{output.name}.partial-") as name:
        partial = Path(name)
        write_weights(backbone, partial, result.settings)
        hashes = file_hashes(partial)
        write_text(partial / CARD, model_card(result.settings, result.stages, result.gates, hashes))
        hashes = file_hashes(partial)
        write_json(partial / TRAINING_RECORD, training_record(result, hashes))
        move_into(partial, output, [*hashes, TRAINING_RECORD])


def move_into(partial: Path, output: Path, names: Iterable[str]) -> None:
    """Moves files to the same places in another folder, in this order, and lets everybody read them."""
    for relative in names:
        target = output / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        # safetensors writes files that only their owner may read.
        (partial / relative).chmod(SHIPPED_MODE)
        os.replace(partial / relative, target)


def file_hashes(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of all files of a folder, by their path in there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
