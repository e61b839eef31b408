"""Whole trainings of an experiment: split in several ways, and killed in a step."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.configuration.cli import parse_experiment
from experiments.runs.tuning import fit
from lightning_m2pt.storage.checkpoint import latest_checkpoint, step_of
from lightning_m2pt.tuning.module import TuningModule
from tests.support.ranks import RanksFailedError, on_ranks


def tune(words: list[str], run: Path, killed_at: int = 0) -> dict[str, Tensor]:
    """Tunes in a run's folder and returns what was trained; dies at the beginning of a step."""
    experiment = parse_experiment(words)
    own_step = TuningModule.training_step

    def step(self: Any, batch: Any, batch_idx: int) -> Any:
        if killed_at and self.trainer.global_step + 1 == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return own_step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TuningModule, "training_step", step)
        fit(experiment, folder=run)
    return {name: each.detach().clone() for name, each in experiment.model.method.named_tensors().items()}


def assert_the_same_however_split(words: list[str], folder: Path) -> None:
    """Compares steps of one batch of eight with four micro-batches of two, and with two ranks of four."""
    whole = tune(words, folder / "whole")
    split = tune([*words, "--data.micro_batch_size=2"], folder / "split")
    ranks = [*words, "--data.micro_batch_size=4", "--trainer.devices=2", "--trainer.strategy=ddp"]
    first, second = on_ranks(2, tune, ranks, folder / "ranks")
    for name, tensor in whole.items():  # of float32, around 0.5
        assert torch.allclose(split[name], tensor, rtol=0, atol=1.2e-7), name
        assert torch.allclose(first[name], tensor, rtol=0, atol=1.2e-7), name
        assert torch.equal(first[name], second[name])


def table_of_killed_and_whole(words: list[str], folder: Path, killed_at: int) -> str:
    """Kills a run at the beginning of a step, goes on, and returns its table, which is that of a run left alone."""
    words = [*words, "--save_every_n_steps=1"]
    whole = tune(words, folder / "whole")
    with pytest.raises(RanksFailedError, match="exit code -9"):
        on_ranks(1, tune, words, folder / "cut", killed_at)
    newest = latest_checkpoint(folder / "cut" / "checkpoints")
    assert newest is not None
    assert step_of(newest) == killed_at - 1
    cut = tune(words, folder / "cut")
    assert all(torch.equal(cut[name], whole[name]) for name in whole)
    tables = [(folder / run / "metrics.csv").read_text() for run in ("whole", "cut")]
    assert tables[0] == tables[1]
    return tables[0]
