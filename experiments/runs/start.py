"""What all processes of a run have to begin with alike, as plain values."""

import hashlib
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiments.configuration.cli import Experiment
from experiments.configuration.path_settings import with_paths
from experiments.runs.folder import PACKAGES, deciding
from lightning_m2pt.parallel.shared_out import would_share_out_weights

OURS = ("lightning_m2pt", "callbacks", "data_modules", "experiments")
CHECKOUT = Path(__file__).resolve().parents[2]


def start_of(experiment: Experiment, resumed_step: int) -> dict[str, Any]:
    """Returns what decides what a process trains, and which checkpoint it goes on from.

    Files may lie elsewhere on another machine: they go by their content, their paths are left out.

    Args:
        experiment: The experiment; its annotations and files have been read.
        resumed_step: The step that it goes on from; 0 for a new run.
    """
    return {
        "version": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        "code": digests_of_code(experiment.opened),
        "settings": with_paths(experiment.config, lambda _path, _key: "a path", experiment.opened),
        "run": deciding(experiment),
        "resumed_step": resumed_step,
        **ran_in_lockstep(experiment),
    }


def ran_in_lockstep(experiment: Experiment) -> dict[str, Any]:
    """Returns what GPUs of several sizes decide differently, where all devices have to run the same modules.

    Of a base that every device holds by itself, some may recompute activations and others not.
    """
    if not would_share_out_weights(experiment.config["trainer"].get("strategy")):
        return {}
    return {"activation_checkpointing": experiment.model.backbone.activation_checkpointing}


def digests_of_code(opened: Iterable[str]) -> dict[str, str]:
    """Returns a digest of each of our packages' sources, and of the modules that an experiment has opened."""
    digests = {package: digest_of_sources(sorted((CHECKOUT / package).rglob("*.py"))) for package in OURS}
    for package in opened:
        modules = [module for name, module in sorted(sys.modules.items()) if f"{name}.".startswith(f"{package}.")]
        files = [Path(file) for module in modules if (file := getattr(module, "__file__", None))]
        digests[package] = digest_of_sources([file for file in files if file.suffix == ".py"])
    return digests


def digest_of_sources(files: Iterable[Path]) -> str:
    """Returns the beginning of the SHA-256 of files' contents."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
