"""A finished projector as the package ships it: its file, its card and its training record."""

import importlib.metadata
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.alignment.card import model_card
from experiments.alignment.recipe import AlignmentResult
from experiments.alignment.settings import ALIGNMENT_VERSION
from experiments.backbone_recipe.export import (
    CARD,
    VERSIONED_PACKAGES,
    file_hashes,
    machine_description,
    move_into,
)
from experiments.backbone_recipe.stage_files import read_tensors, write_json, write_text
from experiments.testbed.world_version import WORLD_VERSION
from lightning_m2pt.backbones.pairs.alignment_record import ALIGNMENT, BASE, FILES, PROJECTOR, RECORD
from lightning_m2pt.storage.foreign.smollm2_dinov2 import LANGUAGE, VISION


def export_projector(result: AlignmentResult, output: Path) -> None:
    """Writes everything into a folder: first beside it, then moved file by file, the training record last."""
    output.mkdir(parents=True, exist_ok=True)
    text_width, vision_width = read_tensors(result.projector)[0]["weight"].shape
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f"{output.name}.partial-") as name:
        partial = Path(name)
        (partial / PROJECTOR).parent.mkdir()
        shutil.copyfile(result.projector, partial / PROJECTOR)
        write_text(partial / CARD, model_card(result, file_hashes(partial), (vision_width, text_width)))
        hashes = file_hashes(partial)
        write_json(partial / RECORD, training_record(result, hashes))
        move_into(partial, output, [*hashes, RECORD])


def training_record(result: AlignmentResult, files: Mapping[str, str]) -> dict[str, Any]:
    """Returns the content of ``training.json``."""
    wheels = {wheel.file: {"sha256": wheel.sha256, "licence": wheel.license} for wheel in (LANGUAGE, VISION)}
    return {
        ALIGNMENT: ALIGNMENT_VERSION,
        "world_version": WORLD_VERSION,
        "settings": asdict(result.settings),
        "steps": result.steps,
        "processes": result.processes,
        "seconds": result.seconds,
        "starts": result.starts,
        "pair": result.pair,
        "training": result.deciding,
        "losses": result.losses,
        "gates": result.gates.as_json(),
        "wheels": wheels,
        BASE: result.base,
        "machine": machine_description(),
        "versions": {package: importlib.metadata.version(package) for package in VERSIONED_PACKAGES},
        FILES: dict(files),
    }
