"""Answers and scores every benchmark of an experiment with one loaded model; predictions first, scores from files."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from callbacks.predictions import PredictionWriter, prediction_file, prediction_header
from callbacks.progress import SampleProgressBar
from data_modules.benchmark import BenchmarkDataModule
from experiments.cli import Experiment
from experiments.console import say
from experiments.run_folder import short_hash
from experiments.scoring import score_file, write_score
from experiments.training import answering_trainer
from lightning_m2pt.adapter import declared_tensors
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.hashing import hash_tensors
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.metrics.score import Score

Toggles = Mapping[str, bool | int | str]
NO_ADAPTER: Toggles = {"method": "frozen"}


def frozen_folder(experiment: Experiment) -> Path:
    """Returns where the untouched model's predictions stand: shared by all runs on the same questions."""
    dtype = experiment.model.backbone.dtype_name
    decides = {
        "backbone": experiment.model.backbone.fingerprint(),
        "questions": [prediction_header(benchmark, None, NO_ADAPTER, dtype) for benchmark in experiment.benchmarks],
    }
    return experiment.output_root / "frozen" / short_hash(decides)


def evaluate_frozen(experiment: Experiment, *, force: bool = False) -> tuple[Path, dict[str, Score]]:
    """Evaluates the untouched backbone; what is there is not answered again.

    Returns:
        The folder and the scores by set.
    """
    folder, method = frozen_folder(experiment), experiment.model.method
    if experiment.model.backbone.is_loaded:
        method.detach(experiment.model.backbone)
    try:
        return folder, answer_and_score(experiment, folder, None, NO_ADAPTER, frozenset(method.part_names()), force)
    finally:
        if experiment.model.backbone.is_loaded:
            method.attach(experiment.model.backbone)


def evaluate_tuned(
    experiment: Experiment, folder: Path, knocked_out: AbstractSet[str] = frozenset(), *, force: bool = False
) -> dict[str, Score]:
    """Evaluates the loaded, attached method.

    Args:
        experiment: Its model is loaded and holds the adapter.
        folder: Where predictions and scores go.
        knocked_out: Parts that are left out.
        force: Answer again even if answers are there.
    """
    model = experiment.model
    model.method.attach(model.backbone, without=knocked_out)
    toggles = {**model.method.toggles(), **dict.fromkeys(sorted(knocked_out), False)}
    if knocked_out:
        toggles["knocked_out"] = ", ".join(sorted(knocked_out))
    adapter = hash_tensors(declared_tensors(model.method))
    try:
        return answer_and_score(experiment, folder, adapter, toggles, knocked_out, force)
    finally:
        model.method.attach(model.backbone)


def answer_and_score(
    experiment: Experiment,
    folder: Path,
    adapter: str | None,
    toggles: Toggles,
    knocked_out: AbstractSet[str],
    force: bool,
) -> dict[str, Score]:
    """Answers what is not answered yet and scores every file."""
    scores: dict[str, Score] = {}
    dtype = experiment.model.backbone.dtype_name
    for benchmark in experiment.benchmarks:
        path = prediction_file(folder, benchmark.name)
        if force or not is_answered(path, prediction_header(benchmark, adapter, toggles, dtype)):
            if not experiment.model.backbone.is_loaded:
                experiment.model.configure_model()
                experiment.model.method.attach(experiment.model.backbone, without=knocked_out)
            answer(experiment, benchmark, PredictionWriter(folder, adapter, toggles))
        else:
            say(f"already answered: {path}")
        header, scored = score_file(path)
        write_score(folder, header, scored)
        scores[benchmark.name] = scored
    return scores


def is_answered(path: Path, header: Mapping[str, object]) -> bool:
    """Tells whether a complete prediction file with this very header is there."""
    if not path.is_file():
        return False
    try:
        return dict(read_predictions(path).header) == dict(header)
    except BadInputError:
        return False


def answer(experiment: Experiment, benchmark: BenchmarkDataModule, writer: PredictionWriter) -> None:
    """Answers one set greedily with the model as it is."""
    model = experiment.model
    model.max_new_tokens = benchmark.max_new_tokens
    model.end_token_id = benchmark.processor.eos_token_id
    say(f"answering {len(benchmark.questions()):,} questions of {benchmark.name}")
    trainer = answering_trainer(experiment, [writer, SampleProgressBar()], {})
    trainer.predict(model, datamodule=benchmark, return_predictions=False)
