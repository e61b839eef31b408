"""What shipped experiments resolve to and what decides their runs' names, kept from before the files were shortened.

``python -m tests.support.golden_configurations`` writes the file again; a change in it is a change of every run's name.
"""

import hashlib
import json
import os
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from experiments.configuration.cli import Experiment, parse_experiment
from experiments.runs.folder import (
    LATER_MODEL_SETTINGS,
    deciding,
    is_component,
    later_model_settings,
    schedule_settings,
    without_later_settings,
)
from tests.support.towers.real_pair import store_real_pair

GOLDEN = Path(__file__).with_name("golden_configurations.json")
BACKBONES = (None, "testbed_patch12")
REAL_PAIR = "smollm2"
"""Ends the names of experiments on real weights: a stand-in's would decide their runs' names, so these are not kept."""


def golden_words() -> dict[str, list[str]]:
    """Returns the words of every shipped experiment, those of the testbed with the second backbone too."""
    found = {}
    for path in sorted(Path("experiments").glob("*.yaml")):
        for backbone in BACKBONES if not path.stem.endswith(("vicuna7b", REAL_PAIR)) else BACKBONES[:1]:
            name = path.stem if backbone is None else f"{path.stem}@{backbone}"
            more = [] if backbone is None else ["--config", f"experiments/backbones/{backbone}.yaml"]
            found[name] = ["--config", str(path), *more]
    return found


def golden_of(experiment: Experiment) -> dict[str, Any]:
    """Returns what decides a run but for its data's content, and a hash of everything but where files lie."""
    decides: dict[str, Any] = {}
    is_real = experiment.name.endswith(REAL_PAIR)
    if experiment.model.method.part_names() and "testbed" in str(experiment.data.root) and not is_real:
        with patch.object(type(experiment.data), "fingerprint", lambda _: ""):
            decides = deciding(experiment)
    return golden_entry(experiment.config, decides)


def golden_entry(config: dict[str, Any], decides: dict[str, Any]) -> dict[str, Any]:
    """Returns an entry of the file from a resolved configuration and what decides its run's name."""
    later, model = later_model_settings(config["model"]), config["model"]
    settings = {key: value for key, value in model.items() if key not in LATER_MODEL_SETTINGS or key in later}
    settings["schedule"] = schedule_settings(model)
    text = json.dumps(without_folders({**config, "model": settings}), sort_keys=True)
    return {
        "decides": {key: value for key, value in decides.items() if key != "data_fingerprint"},
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def without_folders(value: Any) -> Any:
    """Returns a tree whose paths are their last parts, without later settings at their defaults."""
    if isinstance(value, dict):
        known = without_later_settings(value) if is_component(value) else value
        return {key: without_folders(inner) for key, inner in known.items()}
    if isinstance(value, list):
        return [without_folders(inner) for inner in value]
    return PurePath(value).name if isinstance(value, str) and "/" in value else value


def main() -> None:
    """Writes the file."""
    with TemporaryDirectory() as folder, patch.dict(os.environ, {"M2PT_MODELS": folder}):
        store_real_pair(Path(folder))
        entries = {name: golden_of(parse_experiment(words)) for name, words in golden_words().items()}
    GOLDEN.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
