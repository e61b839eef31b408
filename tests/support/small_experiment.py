"""Command-line words that turn a shipped experiment into one of seconds: invented data, a few steps."""

import json
from pathlib import Path

from data_modules.vision_flan import VisionFlan
from data_modules.vsr import VSR
from experiments.configuration.cli import Experiment, parse_experiment
from experiments.runs.prepare import check_experiment
from experiments.runs.tuning import fit

BASE = "experiments/m2pt_base.yaml"


def small_words(folder: Path, config: str = BASE, batch_size: int = 8, steps: int = 10) -> list[str]:
    """Returns words for an experiment on sixteen invented records below ``folder``."""
    data = folder / "vision_flan"
    if not data.exists():
        VisionFlan.write_fake(data)
    return [
        *("--config", config),
        *("--data.root", str(data)),
        *("--data.validation_file", "null"),
        *("--data.questions_per_sample", "1"),
        *("--data.batch_size", str(batch_size)),
        *("--trainer.max_steps", str(steps)),
        *("--trainer.accelerator", "cpu"),
        *("--output_root", str(folder / "outputs")),
        *("--benchmarks", "[]"),
    ]


def fitted(words: list[str], run: Path | None = None) -> tuple[Experiment, Path]:
    """Parses, tunes and returns the experiment with its run folder."""
    experiment = parse_experiment(words)
    return experiment, fit(experiment, folder=run)


def words_with_a_set(folder: Path, *words: str, steps: int = 2) -> list[str]:
    """Returns words for an experiment whose one evaluation set is an invented VSR."""
    if not (folder / "vsr").exists():
        VSR.write_fake(folder / "vsr")
    settings = {"root": str(folder / "vsr"), "template": "vicuna_v1", "batch_size": 4, "max_new_tokens": 5}
    sets = json.dumps([{"class_path": "data_modules.vsr.VSR", "init_args": settings}])
    return [*small_words(folder, steps=steps), "--benchmarks", sets, *words]


def run_with_a_set(folder: Path, *words: str, steps: int = 2) -> Path:
    """Tunes a few steps and returns the run's folder; its one evaluation set is an invented VSR."""
    return fitted(words_with_a_set(folder, *words, steps=steps))[1]


def checked(words: list[str]) -> Experiment:
    """Parses, connects and loads the model, untuned."""
    experiment = parse_experiment(words)
    check_experiment(experiment)
    experiment.model.configure_model()
    return experiment
