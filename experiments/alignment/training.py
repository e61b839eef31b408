"""Training the projector: seeded first numbers, the product's own ``m2pt fit``, and the projector of its adapter."""

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from experiments.alignment.settings import AlignmentSettings
from experiments.backbone_recipe.stage_files import read_tensors, write_tensors
from experiments.configuration.cli import Experiment, parse_experiment
from experiments.runs.folder import run_folder
from experiments.runs.prepare import check_experiment
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.runs.loading import ADAPTER
from lightning_m2pt.storage.adapter_folder import TENSOR_FILE
from lightning_m2pt.storage.run_record import COMPLETED, read_run_record
from lightning_m2pt.system.checkout import child_environment
from lightning_m2pt.system.stop_signals import StopSignals

VERB = "backbone"
START = "start.safetensors"
LARGEST_BYTES = 1_000_000
SECONDS_BETWEEN_LOOKS = 0.5
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""For each process: how many threads add up decides last digits."""

Fitting: TypeAlias = Callable[[Sequence[str]], None]
"""Runs ``m2pt fit`` with words."""


def words_of(settings: AlignmentSettings, projector: Path, captions: Path, work: Path) -> list[str]:
    """Returns the words that the alignment's experiment is called with.

    Args:
        settings: The recipe.
        projector: What the pair begins with.
        captions: Where pictures and captions are, or will be.
        work: Where the run goes.
    """
    return [
        *("--config", str(settings.experiment_file)),
        *("--model.backbone.projector", str(projector)),
        *("--data.root", str(captions)),
        *("--output_root", str(work)),
        *("--seed_everything", str(settings.seed)),
    ]


def start_projector(text_width: int, vision_width: int, seed: int, deviation: float) -> dict[str, Tensor]:
    """Returns the numbers that a projector begins with: normal weights (text_width, vision_width), no bias; float32."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(text_width, vision_width, generator=generator) * deviation
    return {"weight": weight, "bias": torch.zeros(text_width)}


def fit_in_processes(words: Sequence[str]) -> None:
    """Runs ``m2pt fit`` as the command it is, which starts its own second process; a stop signal is passed on.

    In a session of its own it hears of a signal once: a second one would end it before it has saved.

    Raises:
        SystemExit: With its exit code, if it did not end well; what there is to say, it has said.
    """
    command = [sys.executable, "-m", "lightning_m2pt.main", "fit", *words]
    environment = {**child_environment(f"m2pt {VERB}"), **ONE_THREAD}
    signals = StopSignals()
    signals.take_over()
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
        code = passed_on(child, signals)
    finally:
        signals.give_back()
    if code or signals.received:
        raise SystemExit(signals.exit_code if signals.received else code)


def passed_on(child: "subprocess.Popen[bytes]", signals: StopSignals) -> int:
    """Waits for a command and sends it the first stop signal that comes; returns its exit code."""
    told = False
    try:
        while True:
            try:
                return child.wait(SECONDS_BETWEEN_LOOKS)
            except subprocess.TimeoutExpired:
                if signals.received and not told:
                    told = True
                    child.send_signal(signal.SIGINT if signals.received == signal.SIGINT else signal.SIGTERM)
    finally:
        if child.poll() is None:  # a second signal ends this process: nothing is left behind
            child.kill()


def trained_run(words: Sequence[str], fitting: Fitting = fit_in_processes) -> Path:
    """Trains unless that is done, and returns the run's folder.

    Args:
        words: Of the alignment's experiment.
        fitting: What runs ``m2pt fit``.

    Raises:
        BadInputError: If files do not fit together, or the run is not complete.
    """
    experiment = checked(words)
    run = run_folder(experiment)
    if COMPLETED not in read_run_record(run):
        fitting(words)
    if COMPLETED not in read_run_record(run):
        raise BadInputError("the training is not complete", where=str(run), hint="the same command goes on")
    return run


def checked(words: Sequence[str]) -> Experiment:
    """Returns an experiment whose files are there, connected; no weights are loaded."""
    experiment = parse_experiment(words)
    check_experiment(experiment)
    return experiment


def write_projector(run: Path, path: Path) -> None:
    """Writes what a run has trained as a projector's file: ``weight`` and ``bias`` in float32.

    Raises:
        BadInputError: If the run trained something else, or much more.
    """
    tensors, _ = read_tensors(run / ADAPTER / TENSOR_FILE)
    found = {name.removeprefix("interaction."): tensor.float() for name, tensor in tensors.items()}
    if set(found) != {"weight", "bias"}:
        raise BadInputError(
            f"the adapter holds {', '.join(sorted(tensors)):.80}", where=str(run), expected="a linear projector alone"
        )
    write_tensors(path, found)
    if path.stat().st_size >= LARGEST_BYTES:
        raise BadInputError(f"{path.stat().st_size:,} bytes", where=str(path), expected=f"below {LARGEST_BYTES:,}")
