"""Loggers of the user's own: no step twice, no draw from the run's generators, and no failure that reaches the run."""

import random
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch.utils.data import DataLoader

from callbacks import logger_guards
from callbacks.logger_guards import LoggerGuards, kept_name, names_of
from callbacks.loggers import StepMetrics, loggers_for
from callbacks.step_checkpoint import StepCheckpoint
from lightning_m2pt.errors import EnvironmentFailure
from lightning_m2pt.storage.checkpoint import latest_checkpoint, step_of
from lightning_m2pt.storage.checkpoint_io import VerifiedCheckpointIO
from tests.callbacks.test_loggers import KilledProcess, LoggingToy
from tests.callbacks.test_step_checkpoint import INTERVAL, STEPS, At, Rows, collate, loader, raise_

KEY = "k3y-that-nobody-sees"


class Service(Logger):
    """Keeps what it is told, as a service elsewhere would; draws whenever it is asked, and may be out of reach."""

    def __init__(self, calls: list[tuple[int | None, str]], version: str = "one", fails_at: int | None = None) -> None:
        super().__init__()
        self.calls = calls
        self.its_version = version
        self.fails_at = fails_at
        self.hyperparams: dict[str, Any] = {}
        self.ended: list[str] = []

    @property
    def name(self) -> str:
        return "service"

    @property
    def version(self) -> str:
        return self.its_version

    @property
    def experiment(self) -> None:
        if self.fails_at == -1:
            raise ConnectionError(f"no route to https://host?key={KEY}\nat all")

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        torch.rand(1), random.random(), numpy.random.rand()
        if step == self.fails_at:
            raise ConnectionError(f"no route to https://host?key={KEY}")
        self.calls += [(step, name) for name in metrics]

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        self.hyperparams |= dict(params)

    def finalize(self, status: str) -> None:
        self.ended.append(status)


def train(folder: Path, *loggers: Logger, extra: Callback | None = None) -> Trainer:
    """Trains the toy, resumed where a stopped training left off; returns the Trainer."""
    seed_everything(3, verbose=False)
    newest = latest_checkpoint(folder / "checkpoints")
    resumed_step = step_of(newest) if newest else 0
    guards = LoggerGuards(loggers, folder, resumed_step, made_here=True)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        callbacks=[guards, StepCheckpoint(folder / "checkpoints", INTERVAL), *([extra] if extra else [])],
        plugins=[VerifiedCheckpointIO(), LightningEnvironment()],
        logger=[*loggers_for(folder, resumed_step), *loggers],
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    guards.open(trainer)
    validation = DataLoader(Rows(), batch_size=5, collate_fn=collate, generator=torch.Generator())
    trainer.fit(LoggingToy(), loader(1), validation, ckpt_path=newest, weights_only=True)
    return trainer


def kill(folder: Path, step: int, logger: Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(StepCheckpoint, "on_exception", lambda *_: None)
        patch.setattr(StepMetrics, "finalize", lambda *_: None)
        with pytest.raises(KilledProcess):
            train(folder, logger, extra=At(step, raise_(KilledProcess()), inside_window=True))


def weight(trainer: Trainer) -> torch.Tensor:
    module: Any = trainer.lightning_module
    return module.weight.detach()


def test_a_run_that_was_killed_is_in_a_service_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger_guards, "CONTINUED", (Service,))
    whole, cut = Service([]), Service([])
    plain = train(tmp_path / "plain")
    watched = train(tmp_path / "whole", whole)
    for step in (2, INTERVAL + 1, 2 * INTERVAL + 2):
        kill(tmp_path / "cut", step, Service(cut.calls), monkeypatch)
    resumed = train(tmp_path / "cut", cut)
    assert sorted(cut.calls) == sorted(whole.calls)
    assert len(set(whole.calls)) >= 2 * STEPS
    assert cut.ended == ["success"]
    assert kept_name(tmp_path / "cut", "Service") == "one"
    # Its draws are its own.
    assert torch.equal(weight(plain), weight(watched))
    assert torch.equal(weight(plain), weight(resumed))


def test_another_name_at_the_service_gets_every_step_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logger_guards, "CONTINUED", (Service,))
    first, second = Service([]), Service([], version="two")
    kill(tmp_path, 2, first, monkeypatch)
    train(tmp_path, second)
    assert {step for step, name in second.calls if name == "train/loss"} == set(range(STEPS))
    assert kept_name(tmp_path, "Service") == "two"


def test_a_failure_is_said_once_without_keys_and_nothing_else_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SOME_API_KEY", KEY)
    fails, other = Service([], fails_at=2), Service([])
    plain, watched = train(tmp_path / "plain"), train(tmp_path / "watched", fails, other)
    said = [record.getMessage() for record in caplog.records if record.name == "callbacks.logger_guards"]
    assert len(said) == 1
    assert said[0].startswith("Service has failed and is left alone until the next start")
    assert KEY not in said[0]
    assert {step for step, _ in fails.calls} == {0, 1}
    assert {step for step, _ in other.calls} == set(range(STEPS))
    assert torch.equal(weight(plain), weight(watched))
    tables = [(tmp_path / run / "metrics.csv").read_bytes() for run in ("plain", "watched")]
    assert tables[0] == tables[1]


def test_what_cannot_begin_is_refused_in_three_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", KEY)
    with pytest.raises(EnvironmentFailure, match="Service cannot begin: no route to") as caught:
        train(tmp_path, Service([], fails_at=-1))
    assert KEY not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3


def test_loggers_of_one_class_go_by_different_names() -> None:
    assert names_of([int, str, int, int]) == ["int", "str", "int-2", "int-3"]
