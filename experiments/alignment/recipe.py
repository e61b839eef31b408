"""The whole recipe of a projector between two frozen models: pictures, training, gates."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.alignment.gates import AlignmentGates, figures_of, gates_of
from experiments.alignment.rendered import CAPTIONS, rendered_captions
from experiments.alignment.settings import AlignmentSettings
from experiments.alignment.training import (
    START,
    VERB,
    Fitting,
    fit_in_processes,
    start_projector,
    trained_run,
    words_of,
    write_projector,
)
from experiments.backbone_recipe.stage_files import write_tensors
from experiments.configuration.cli import parse_experiment
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.runs.metrics_file import METRICS_FILE, STEP, read_metrics
from lightning_m2pt.storage.run_record import COMPLETED, DECIDING, MADE_WITH, read_run_record
from lightning_m2pt.system.console import say
from lightning_m2pt.system.file_hashes import read_and_hash
from lightning_m2pt.system.launch import check_alone

ALIGNED = "aligned.safetensors"
LOSS = "train/loss"
RECORDED_LOSSES = 20


@dataclass(frozen=True)
class AlignmentResult:
    """What the recipe did.

    Attributes:
        settings: The recipe.
        projector: The finished projector's file.
        losses: At some steps the mean of the training loss since the one before.
        steps: Optimizer steps.
        seconds: Time on the clock of the last start of the training.
        processes: Processes of the training.
        starts: When the training was started or went on, and from which commit.
        deciding: All settings of the training, as its run's record has them.
        pair: Arguments of the pair that decide what the projector reads.
        base: SHA-256 of the weights of both frozen models, by their path in the pair's folder.
        gates: What the projector reached.
    """

    settings: AlignmentSettings
    projector: Path
    losses: list[dict[str, float]]
    steps: int
    seconds: float
    processes: int
    starts: list[dict[str, Any]]
    deciding: dict[str, Any]
    pair: dict[str, Any]
    base: dict[str, str]
    gates: AlignmentGates


def run_alignment(
    settings: AlignmentSettings, work: Path, more: Sequence[str] = (), fitting: Fitting = fit_in_processes
) -> AlignmentResult:
    """Does what of the recipe is not done in the work folder, and measures the gates.

    Args:
        settings: The recipe.
        work: Where pictures, run and projectors are.
        more: Words on top of the experiment's file.
        fitting: What runs ``m2pt fit``.

    Raises:
        BadInputError: If the pair is not there, or what lies in the work folder is of something else.
    """
    check_alone(VERB, os.environ)
    start, aligned = work / START, work / ALIGNED
    words = [*words_of(settings, start, work / CAPTIONS, work), *more]
    experiment = parse_experiment(words)  # refused here if the pair is not there
    base = hashes_of_pair(experiment.model.backbone)
    rendered_captions(settings, work)
    shape = experiment.model.backbone.shape
    write_tensors(start, start_projector(shape.text_width, shape.vision_width, settings.seed, settings.start_deviation))
    run = trained_run(words, fitting)
    write_projector(run, aligned)
    say("measuring the gates on unseen pictures: first the projector that training began with, then the trained one")
    start_figures = figures_of(words, start, settings.start_unseen, settings.batch)
    gates = gates_of(settings, figures_of(words, aligned, settings.unseen, settings.batch), start_figures)
    record = read_run_record(run)
    completed, arguments = record[COMPLETED], experiment.config["model"]["backbone"]["init_args"]
    return AlignmentResult(
        settings,
        aligned,
        recorded_losses(run),
        int(completed["optimizer_steps"]),
        float(completed["seconds"]),
        int(experiment.config["trainer"]["devices"]),
        [{key: start.get(key) for key in ("started", "git_commit")} for start in record[MADE_WITH]],
        record[DECIDING],
        {name: arguments[name] for name in ("image_size", "feature_layer", "feature_norm", "dtype")},
        base,
        gates,
    )


def hashes_of_pair(backbone: Backbone) -> dict[str, str]:
    """Returns the SHA-256 of both models' weights.

    Raises:
        BadInputError: If the experiment's backbone is no pair.
    """
    if not isinstance(backbone, TowerAndDecoder):
        raise BadInputError("this is no pair", where="model.backbone", expected="a tower, a projector and a decoder")
    return {name: read_and_hash(path) for name, path in backbone.files.weights().items()}


def recorded_losses(run: Path) -> list[dict[str, float]]:
    """Returns the mean training loss of every twentieth part of a run, with its last step."""
    found = [(int(row[STEP]), float(row[LOSS])) for _, row in read_metrics(run / METRICS_FILE) if row.get(LOSS)]
    length = -(-len(found) // RECORDED_LOSSES)
    parts = [found[start : start + length] for start in range(0, len(found), max(1, length))]
    return [{"step": part[-1][0], "loss": round(sum(loss for _, loss in part) / len(part), 4)} for part in parts]
