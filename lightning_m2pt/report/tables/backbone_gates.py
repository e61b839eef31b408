"""Which gates an embedded backbone missed when it was trained: a result on it says so."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from lightning_m2pt.report.tables.sweeps import read_json
from lightning_m2pt.runs.evaluated import Group
from lightning_m2pt.system.console import say

TRAINING_FILE = "training.json"
PASSED = "passed"


def say_missed_gates(config: dict[str, Any]) -> None:
    """Says below a table of scores which gates an experiment's backbone misses, if any.

    Args:
        config: The experiment's resolved configuration.
    """
    for note in gate_notes(config["model"]["backbone"], [Path()]):
        say(note)


def missed_gate_notes(groups: Sequence[Group]) -> list[str]:
    """Returns a sentence for every backbone of these groups that misses gates.

    Args:
        groups: Runs; those without a configuration, as of the untouched model, say nothing.
    """
    models = [run.config.get("model") for group in groups for run in group.runs]
    backbones = [model["backbone"] for model in models if isinstance(model, dict) and "backbone" in model]
    notes = [note for backbone in backbones if isinstance(backbone, dict) for note in gate_notes(backbone, [Path()])]
    return list(dict.fromkeys(notes))


def gate_notes(backbone: dict[str, Any], roots: Sequence[Path]) -> list[str]:
    """Returns which gates an embedded backbone, or a pair's embedded projector, missed when it was trained.

    Its own record says it, which lies in the folder of the whole backbone, or in the one above the projector's.

    Args:
        backbone: Class and arguments of the backbone.
        roots: Folders that relative paths are looked for in.
    """
    arguments = backbone.get("init_args")
    if not isinstance(arguments, dict):
        return []
    folders = [folder for folder in (backbone_folder(arguments), projector_folder(arguments)) if folder is not None]
    files = [root / folder / TRAINING_FILE for folder in folders for root in roots]
    path = next((file for file in files if file.is_file()), None)
    content = read_json(path) if path is not None else None
    report = content.get("gates") if content is not None else None
    gates = report.get("gates", []) if isinstance(report, dict) else []
    missed = [gate for gate in gates if isinstance(gate, dict) and gate.get("verdict") != PASSED]
    if not missed:
        return []
    listed = "; ".join(
        f"{gate['name']} {100 * gate['figure']:.1f}% (asked: {100 * gate['threshold']:.1f}%)" for gate in missed
    )
    return [f"the backbone misses {len(missed)} of its {len(gates)} gates: {listed}"]


def projector_folder(arguments: dict[str, Any]) -> Path | None:
    """Returns the folder that holds the folder of a pair's projector; None where there is no such file."""
    projector = arguments.get("projector")
    return Path(projector).parent.parent if isinstance(projector, str) else None


def backbone_folder(arguments: dict[str, Any]) -> Path | None:
    """Returns the folder that holds all files of a backbone; the language model's if they lie apart.

    Files that lie together are in it or in folders of it. Absolute paths have a common folder wherever they lie.
    """
    files = [PurePath(value) for value in arguments.values() if isinstance(value, str) and "/" in value]
    if files and len({file.is_absolute() for file in files}) == 1:
        together = Path(os.path.commonpath(files))
        if together.name and all(len(file.relative_to(together).parts) <= 2 for file in files):
            return together
    language = arguments.get("language_model")
    return Path(language) if isinstance(language, str) else None
