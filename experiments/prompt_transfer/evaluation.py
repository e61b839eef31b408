"""Answers and scores a target's sets for every row of a transfer; predictions first, scores from files."""

from collections.abc import Sequence
from functools import partial as bound
from pathlib import Path

import torch

from callbacks.predictions import prediction_file
from data_modules.benchmark import BenchmarkDataModule
from experiments.configuration.cli import Experiment
from experiments.prompt_transfer.rows import Row
from experiments.runs.answering import started_ranks
from experiments.runs.evaluation import AnsweringOptions, Toggles, answer_and_score
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.prompts.pixel_prompt import PixelPrompt
from lightning_m2pt.system.tensor_hashes import hash_tensors


def evaluate_rows(
    experiment: Experiment, rows: Sequence[Row], folder: Path, toggles: Toggles, options: AnsweringOptions
) -> None:
    """Answers what is not answered yet, row after row, and scores every file.

    Args:
        experiment: The target's; its model is loaded when something is to be answered.
        rows: The rows; one that has another row's pictures is not asked again.
        folder: Predictions and scores of a row go into a folder of its own below.
        toggles: What is said of the prompts in every file.
        options: How the evaluation is made.
    """
    ranks = started_ranks(experiment)
    for row in rows:
        if row.same_as:
            continue
        place = folder / row.folder
        if options.force or not ranks.of_first(bound(is_answered, experiment.benchmarks, place)):
            put_in(experiment, row)
        adapter = hash_tensors({"delta": row.delta})
        said = {**toggles, "row": row.name, "clip": row.clip}
        answer_and_score(experiment, place, adapter, said, frozenset(), options)


def is_answered(benchmarks: Sequence[BenchmarkDataModule], folder: Path) -> bool:
    """Tells whether a folder has a prediction file of every set."""
    return all(prediction_file(folder, benchmark.name).is_file() for benchmark in benchmarks)


def put_in(experiment: Experiment, row: Row) -> PixelPrompt:
    """Loads the target if it is not loaded, attaches its method and puts a row's numbers in.

    Args:
        experiment: The target's.
        row: The row.
    """
    model = experiment.model
    if not model.backbone.is_loaded:
        model.configure_model()
    method = model.method
    assert isinstance(method, PixelPrompting)
    prompt = method.pixel_prompt
    assert prompt is not None
    with torch.no_grad():
        prompt.delta.copy_(row.delta)
    prompt.clip = row.clip
    method.attach(model.backbone)
    return prompt
