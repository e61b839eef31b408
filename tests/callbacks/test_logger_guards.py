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
from callbacks.logger_guards import LoggerGuards, generators_of_its_own, in_one_line, kept_name, names_of
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


def test_the_validation_of_the_resumed_step_is_logged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning logs the numbers of step 10, and of its validation, under index 9; both may come again."""
    monkeypatch.setattr(logger_guards, "CONTINUED", (Service,))
    calls: list[tuple[int | None, str]] = []
    for resumed_step in (0, 10, 10):
        logger = Service(calls)
        LoggerGuards([logger], tmp_path, resumed_step, made_here=True).guards[0].open({})
        for name, step in (("val/loss", 9), ("train/loss", 10)):
            logger.log_metrics({name: 1.0}, step)
    assert calls == [(9, "val/loss"), (10, "train/loss")]
    logger.log_metrics({"train/loss": 1.0}, 9)
    assert calls[2:] == [(9, "train/loss")]


def test_what_failed_is_no_step_that_the_service_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logger_guards, "CONTINUED", (Service,))
    calls: list[tuple[int | None, str]] = []
    for fails_at in (9, None):
        logger = Service(calls, fails_at=fails_at)
        LoggerGuards([logger], tmp_path, 10, made_here=True).guards[0].open({})
        logger.log_metrics({"val/loss": 1.0}, 9)
    assert calls == [(9, "val/loss")]


def test_only_the_first_process_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = Service([])
    LoggerGuards([logger], tmp_path, 0, made_here=True)
    monkeypatch.setattr(logger_guards.rank_zero_only, "rank", 1, raising=False)
    logger.log_metrics({"train/loss": 1.0}, 0)
    logger.finalize("success")
    assert (logger.calls, logger.ended) == ([], [])


@pytest.mark.parametrize(
    ("variable", "is_hidden"),
    [("SOME_API_KEY", True), ("HF_TOKEN", True), ("DB_PASSWORD", True), ("A_SECRET", True), ("CITY", False)],
)
def test_values_of_variables_that_hold_keys_are_not_repeated(
    monkeypatch: pytest.MonkeyPatch, variable: str, is_hidden: bool
) -> None:
    monkeypatch.setenv(variable, "berlin")
    assert in_one_line(ConnectionError("no way\nto berlin")) == f"no way to {'***' if is_hidden else 'berlin'}"


@pytest.mark.parametrize(("made_here", "status"), [(True, "success"), (True, "failed"), (False, "success")])
def test_a_run_of_a_service_is_closed_by_whoever_opened_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_here: bool, status: str
) -> None:
    ended: list[int] = []

    class Experiment:
        def finish(self, exit_code: int) -> None:
            ended.append(exit_code)

    class Wandb(Service):
        experiment = Experiment()  # type: ignore[assignment]

    monkeypatch.setattr(logger_guards, "WandbLogger", Wandb)
    logger = Wandb([])
    LoggerGuards([logger], tmp_path, 0, made_here=made_here)
    logger.finalize(status)
    assert logger.ended == [status]
    assert ended == ([{"success": 0, "failed": 1}[status]] if made_here else [])


def test_a_service_draws_names_that_the_seed_does_not_decide() -> None:
    drawn = []
    for _ in range(2):
        random.seed(3)
        with generators_of_its_own():
            drawn.append(random.random())
        drawn.append(random.random())
    assert drawn[0] != drawn[2]
    assert drawn[1] == drawn[3]
