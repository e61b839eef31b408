"""Where a run lives: a readable name and a short hash of what decides its numbers, so the same command resumes."""

import json
import os
import platform
import sys
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_modules.base import DataModule
from data_modules.conversations import Conversations
from data_modules.mixture import sets_inside
from experiments.configuration.cli import Experiment
from experiments.trainer.surface import configured_processes, deciding_settings, split_decides
from lightning_m2pt.configuration.paths import file_arguments, is_yaml, path_arguments
from lightning_m2pt.configuration.tree import first_difference
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.named_templates import PUBLISHED
from lightning_m2pt.methods.base import Method
from lightning_m2pt.storage.adapter_folder import TEMPLATE_DIGEST
from lightning_m2pt.storage.run_record import (
    BACKBONE_NAMES,
    DECIDING,
    MADE_WITH,
    SLURM_JOB,
    read_run_record,
    short_hash,
)
from lightning_m2pt.system.checkout import commit_of
from lightning_m2pt.system.slurm_job import slurm_job_of
from lightning_m2pt.tuning.module import TuningModule, regularisers_of

NOT_DECIDING_DATA_KEYS = ("root", "num_workers", "micro_batch_size", "index")
LATER_SETTINGS: dict[str, dict[str, Any]] = {
    "data_modules.mnist.MNIST": {"candidates": "numerals"},
    "data_modules.pope.POPE": {"question_file": None},
    "data_modules.text_vqa.TextVQA": {"ocr_tokens": False},
    "data_modules.vision_flan.VisionFlan": {"index": True, "index_folder": None},
}
"""Settings of sets that came later than runs there are, with their defaults: at those they are as if not there."""
LATER_MODEL_SETTINGS: dict[str, Any] = {"gradient_norm": None, "regularisers": []}
"""Settings of the model that came later, with their defaults: at those a name is as before."""
LATER_SCHEDULE_SETTINGS: dict[str, Any] = {"prompt_first_steps": 0}
"""The same of the schedule's."""
NOT_DECIDING_METHOD_KEYS = ("path",)
NOT_DECIDING_BACKBONE_KEYS = ("activation_checkpointing", "compile_backend", "feature_cache", "feature_cache_bytes")
PACKAGES = ("torch", "lightning", "transformers", "open_clip_torch", "torchmetrics", "jsonargparse", "safetensors")


def deciding(experiment: Experiment) -> dict[str, Any]:
    """Returns what decides the numbers of a run: method, backbone, data, optimisation, seed and global batch.

    Not devices, strategy, workers, paths or logging: the same experiment elsewhere has the same name. With
    ``loss_average: micro_batch`` or dropout the split of a step does decide, and is included where there is one.
    """
    model, data = experiment.config["model"], experiment.config["data"]
    # What is read counts by its content (`data_fingerprint`), wherever it lies.
    kinds = {type(each) for each in sets_inside(experiment.data)}
    not_deciding = {*NOT_DECIDING_DATA_KEYS, *(name for kind in kinds for name in path_arguments(kind))}
    arguments = data.get("init_args", {})
    not_deciding |= {name for name in file_arguments(type(experiment.data)) if is_yaml(arguments.get(name))}
    if not arguments.get("group_by_length"):
        not_deciding.add("group_by_length")  # runs from before this key existed keep their names
    means_of_means, splits = model["loss_average"] == "micro_batch", split_decides(experiment.config)
    if means_of_means or (splits and arguments.get("micro_batch_size") is not None):
        not_deciding.remove("micro_batch_size")
    processes = configured_processes(experiment.config["trainer"])
    return {
        "method": without_later_settings(without_keys(model["method"], NOT_DECIDING_METHOD_KEYS)),
        "backbone": experiment.model.backbone.fingerprint(),
        "dtype": model["backbone"].get("init_args", {}).get("dtype"),
        "optimizer": model["optimizer"],
        "schedule": schedule_settings(model),
        "loss_average": model["loss_average"],
        **later_model_settings(model),
        **regularisers_by_content(experiment.model),
        "data": without_later_settings(without_keys(data, not_deciding)),
        "data_fingerprint": experiment.data.fingerprint(),
        "seed": experiment.seed,
        "trainer": deciding_settings(experiment.config),
        **({"processes": processes} if splits and processes > 1 else {}),
        **template_content(experiment.data),
    }


def later_model_settings(model: dict[str, Any]) -> dict[str, Any]:
    """Returns the model's later settings that do not stand at their defaults."""
    return {key: model[key] for key, default in LATER_MODEL_SETTINGS.items() if model.get(key) not in (None, default)}


def schedule_settings(model: dict[str, Any]) -> dict[str, Any]:
    """Returns the schedule's settings but for later ones that stand at their defaults."""
    later = LATER_SCHEDULE_SETTINGS
    return {key: value for key, value in model["schedule"].items() if key not in later or value != later[key]}


def regularisers_by_content(model: TuningModule) -> dict[str, Any]:
    """Returns what decides the numbers of the loss's further terms: not where a teacher lies, but what it is."""
    found = [each.deciding() for each in regularisers_of(model)]
    return {"regularisers": found} if found else {}


def template_content(data: DataModule) -> dict[str, str]:
    """Returns what a template says that no key of the configuration does; nothing for the published ones.

    The model's own template is no part of the backbone's fingerprint: runs in other templates do not depend on it.
    """
    return {} if data.template in PUBLISHED else {TEMPLATE_DIGEST: data.processor.bound(data.template).digest}


def formerly_deciding(experiment: Experiment, decides: dict[str, Any]) -> dict[str, Any]:
    """Returns what decided a run's name while backbones went by the first version of their fingerprint.

    Args:
        experiment: The experiment.
        decides: What decides its name today.
    """
    return {**decides, "backbone": experiment.model.backbone.former_fingerprint()}


def without_keys(component: dict[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """Returns a component's class path and arguments, but for the keys that do not decide numbers, at any depth."""
    return {
        "class_path": component["class_path"],
        "init_args": {
            key: [without_keys(item, keys) if is_component(item) else item for item in value]
            if isinstance(value, list)
            else value
            for key, value in component.get("init_args", {}).items()
            if key not in keys
        },
    }


def without_later_settings(component: dict[str, Any]) -> dict[str, Any]:
    """Returns a set or a method, but for later settings that stand at their defaults, in it and in those inside it."""
    if "init_args" not in component:
        return component
    later = later_settings(component["class_path"])
    return {
        **component,
        "init_args": {
            key: [without_later_settings(item) if is_component(item) else item for item in value]
            if isinstance(value, list)
            else value
            for key, value in component["init_args"].items()
            if key not in later or value != later[key]
        },
    }


def later_settings(class_path: str) -> Mapping[str, Any]:
    """Returns the arguments of a component that came later than runs there are, with their defaults.

    Methods and sets of conversations say them, and so for classes made of them. Nothing is imported: what was
    configured, is.
    """
    module, _, name = class_path.rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    later: dict[str, Any] = dict(LATER_SETTINGS.get(class_path, {}))
    if isinstance(kind, type) and issubclass(kind, Method | Conversations):
        later.update(kind.later_arguments)
    return later


def is_component(value: Any) -> bool:
    """Tells whether a value of a configuration is a component with arguments of its own."""
    return isinstance(value, dict) and "class_path" in value


def run_folder(experiment: Experiment) -> Path:
    """Returns the folder of this experiment's run; the same deciding settings give the same folder.

    A run that stands under its former name is found there and goes on.
    """
    decides = deciding(experiment)
    return present_or_first(
        experiment.output_root / experiment.name / f"{experiment.model.method.name}-seed{experiment.seed}-{name}"
        for name in map(short_hash, (decides, formerly_deciding(experiment, decides)))
    )


def present_or_first(folders: Iterable[Path]) -> Path:
    """Returns the first folder that is there, or the first of all: names of today first, then former ones."""
    named = list(folders)
    return next((folder for folder in named if folder.is_dir()), named[0])


def refuse_other_settings(folder: Path, experiment: Experiment) -> None:
    """Compares a run's recorded settings with the experiment's.

    Raises:
        BadInputError: If a deciding one differs; the first is named with both values.
    """
    recorded = recorded_settings(folder, experiment)
    if recorded is not None and recorded != (decides := deciding(experiment)):
        key, was, now = first_difference(recorded, decides)
        raise BadInputError(
            f"{key} was {json.dumps(was)[:120]} in this run and is {json.dumps(now)[:120]} now",
            where=str(folder),
            expected="the settings the run was started with",
        )


def recorded_settings(folder: Path, experiment: Experiment) -> dict[str, Any] | None:
    """Returns a run's recorded settings, its backbone by the name of today where the former one fits.

    The former name leaves something out. A run of before that was started again since has recorded today's as well.
    """
    record = read_run_record(folder)
    recorded: dict[str, Any] | None = record.get(DECIDING)
    name, former = backbone_names(experiment)
    if recorded is None or recorded.get("backbone") != former:
        return recorded
    known = [names[0] for start in record.get(MADE_WITH, []) if (names := start.get(BACKBONE_NAMES))]
    return {**recorded, "backbone": known[0] if known else name}


def backbone_names(experiment: Experiment) -> list[str]:
    """Returns the backbone's fingerprint and the former one."""
    return [experiment.model.backbone.fingerprint(), experiment.model.backbone.former_fingerprint()]


def made_with(experiment: Experiment) -> dict[str, Any]:
    """Returns versions, code revision, host and time, and the settings that decide nothing but the last bits.

    The processor's instruction set is there because it decides the last bits too: with another one, or resumed with
    other shortcuts, the same run ends elsewhere.
    """
    import torch

    job = slurm_job_of(os.environ)
    packs = ("bitsandbytes",) if experiment.model.backbone.quantization == "nf4" else ()
    return {
        "python": sys.version.split()[0],
        "packages": {package: version(package) for package in (*PACKAGES, *packs)},
        "git_commit": commit_of(Path(__file__).parents[2]),
        "host": platform.node(),
        "machine": f"{platform.system()} {platform.machine()}",
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "changes_last_bits": changes_last_bits(experiment),
        BACKBONE_NAMES: backbone_names(experiment),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        **({SLURM_JOB: job} if job else {}),
        "allowed_imports": list(experiment.opened),  # what a later command on this run will have to open again
    }


def changes_last_bits(experiment: Experiment) -> dict[str, Any]:
    """Returns the settings, and what ``auto`` became, that change nothing in a run but its rounding."""
    model = experiment.config["model"]
    arguments = {
        **experiment.config["data"].get("init_args", {}),
        **model["backbone"].get("init_args", {}),
        **model["method"].get("init_args", {}),
    }
    return {
        **{key: arguments.get(key) for key in ("path", "micro_batch_size", "compile_backend", "feature_cache")},
        "shortcuts": model["shortcuts"],
        "activation_checkpointing": experiment.model.backbone.activation_checkpointing,
    }
