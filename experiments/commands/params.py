"""Runs ``m2pt params``; its flags and what it is for are in ``parsers``."""

import json
from collections.abc import Sequence
from typing import Any

from data_modules.instruction import InstructionDataModule
from experiments.commands.parsers.params import argument_parser
from experiments.configuration.cli import Experiment
from experiments.runs.loading import experiment_of
from experiments.runs.memory import lines, plan_of, upper_bound
from experiments.trainer.surface import configured_processes
from lightning_m2pt.backbones.decoders.reference import notice_of_reference
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.collector import without_collector
from lightning_m2pt.system.console import OUT, say
from lightning_m2pt.tuning.module import TuningModule, build_on_meta, regularisers_of
from lightning_m2pt.tuning.module_memory import estimate_of
from lightning_m2pt.tuning.parameter_counts import counts_table, parameter_counts


@without_collector()
def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own, rest = argument_parser().parse_known_args(list(arguments))
    experiment = experiment_of(None, own.adapter, rest)
    counted = count(experiment.model)
    OUT.print(counts_table(counted))
    say_memory(experiment)
    notice = notice_of_reference(experiment.model.backbone.shape)
    if notice:
        say(notice)
    path = own.output or experiment.output_root / experiment.name / "params.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(counted, indent=2) + "\n").encode())
    say(f"stored in {path}")
    return ExitCode.DONE


def say_memory(experiment: Experiment) -> None:
    """Says what tuning would take at most with the largest micro-batch that the settings allow."""
    data, model = experiment.data, experiment.model
    if not isinstance(data, InstructionDataModule) or not model.method.part_names():
        return
    try:
        for term in regularisers_of(model):
            term.held_bytes()
    except BadInputError as missing:  # counting needs no file of a teacher's, and its memory does
        say(f"memory       not estimated: {missing.where}: {missing.what}")
        return
    plan = plan_of(experiment.config["trainer"], configured_processes(experiment.config["trainer"]))
    estimate = estimate_of(model, upper_bound(data, plan.devices.number), plan)
    recomputes = model.backbone.shape.recomputes_activations
    for line in lines(estimate, "with the longest texts allowed", recomputes, plan.devices):
        say(line)


def count(model: TuningModule) -> dict[str, Any]:
    """Counts base and trained numbers; builds the module on the meta device."""
    build_on_meta(model)
    return parameter_counts(model.method.parameter_parts(), model.backbone.base_parameters())
