"""ZeRO on two processes: DeepSpeed's own steps, and what one process trains, saves and goes on from."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.runtime.zero.linear import zero3_linear_wrap
from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.prompt_statistics import PromptStatistics
from experiments.configuration.cli import parse_experiment
from experiments.runs.tuning import fit
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.parallel.zero import ZeroStrategy
from lightning_m2pt.runs.loading import ADAPTER
from lightning_m2pt.storage.checkpoint import read_checkpoint, step_folder
from lightning_m2pt.storage.run_record import COMPLETED
from lightning_m2pt.tuning.own_trainer import check_trainer
from tests.support.ranks import RanksFailedError, on_ranks
from tests.support.small_experiment import small_words
from tests.support.strategies.cpu_zero import CpuZeroStrategy

RATES = '{"visual_prompts": 1.0e-3, "textual_prompts": 5.0e-4, "interaction": 5.0e-5}'
"""A twentieth of those of m2pt_base, at which rounding stays what it is."""
STEPS = 4
AS_SHARED_OUT = (
    *("--model.method.path", "token"),
    *("--model.shortcuts.shared_rows_once", "false", "--model.shortcuts.supervised_rows_only", "false"),
)
"""The passes that stage 3 takes: each rounds in its own way."""


def words_of(folder: Path, *words: str) -> list[str]:
    return [
        *small_words(folder, batch_size=4, steps=STEPS),
        *("--data.micro_batch_size", "1", "--save_every_n_steps", "2"),
        *("--model.optimizer.learning_rate", RATES, *words),
    ]


def fitted_on_ranks(words: list[str], run: Path, ranks: int, stage: int, killed_at: int = 0) -> None:
    """Tunes on several processes, under ZeRO if there is a stage and else under DDP; all die before a step's update."""

    def fit_here() -> None:
        experiment = parse_experiment([*words, "--trainer.strategy", "ddp", "--trainer.devices", str(ranks)])
        if stage:
            experiment.trainer_objects = {"strategy": CpuZeroStrategy(stage)}
        if killed_at:
            PromptStatistics.on_before_optimizer_step = partialmethod(die_at, killed_at)
        fit(experiment, folder=run)

    on_ranks(ranks, fit_here, timeout=120)


def die_at(_: object, step: int, trainer: Trainer, *__: object) -> None:
    """Is what a callback does before an update, on every rank."""
    if trainer.global_step == step:
        os.kill(os.getpid(), signal.SIGKILL)


def fitted_alone(words: list[str], run: Path, linear: Callable[..., Tensor]) -> None:
    """Tunes in one process, with this function in every linear layer."""

    def fit_here() -> None:
        torch.nn.functional.linear = linear
        fit(parse_experiment(words), folder=run)

    on_ranks(1, fit_here, timeout=120)


def adapter_of(run: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(next((run / ADAPTER).glob("*.safetensors")))


def cut_back(run: Path, step: int, to: Path) -> Path:
    """Copies a run as it was after a step."""
    shutil.copytree(run, to)
    for folder in (to / "checkpoints").iterdir():
        if folder != step_folder(to / "checkpoints", step):
            shutil.rmtree(folder)
    shutil.rmtree(to / ADAPTER)
    record = json.loads((to / "run.json").read_text())
    del record[COMPLETED]
    (to / "run.json").write_text(json.dumps(record))
    return to


def assert_same_state(found: Any, expected: Any, place: str = "state") -> None:
    """Compares two checkpoints: the same keys and plain values, tensors within 1e-6."""
    if isinstance(expected, dict):
        assert list(found) == list(expected), place
        for key in expected:
            assert_same_state(found[key], expected[key], f"{place}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), place
        for number, value in enumerate(expected):
            assert_same_state(found[number], value, f"{place}.{number}")
    elif isinstance(expected, Tensor):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6, msg=place)
    else:
        assert found == (pytest.approx(expected, rel=1e-4) if isinstance(expected, float) else expected), place


@pytest.mark.parametrize("stage", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_two_ranks_train_what_one_process_does_and_go_on_from_each_other(tmp_path: Path, stage: int) -> None:
    """Two micro-batches a rank and step, three parameter groups with rates of their own, gradients clipped to 1.

    One process takes the passes that stage 3 takes, and rounds in a linear layer as DeepSpeed's does, bias last.
    """
    words, run = words_of(tmp_path, *(AS_SHARED_OUT if stage == 3 else ())), tmp_path / "alone"
    fitted_alone(words, run, zero3_linear_wrap if stage == 3 else torch.nn.functional.linear)
    fitted_on_ranks(words, tmp_path / "zero", 2, stage)
    expected = adapter_of(run)
    torch.testing.assert_close(adapter_of(tmp_path / "zero"), expected, rtol=0, atol=1e-6)
    saved, like = (read_checkpoint(step_folder(folder / "checkpoints", STEPS)) for folder in (tmp_path / "zero", run))
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_same_state(saved[key], like[key], key)
    fitted_on_ranks(words, cut_back(run, 2, tmp_path / "zero_after_alone"), 2, stage)
    torch.testing.assert_close(adapter_of(tmp_path / "zero_after_alone"), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("precision", "clipped_by", "where"),
    [
        ("bf16-mixed", "norm", "trainer.precision"),
        ("16-mixed", None, "trainer.precision"),
        ("32-true", "value", "trainer.gradient_clip_algorithm"),
    ],
)
def test_what_would_change_numbers_is_refused(precision: str, clipped_by: str | None, where: str) -> None:
    strategy = CpuZeroStrategy()
    strategy.check("32-true", "norm")
    with pytest.raises(BadInputError) as refused:
        strategy.check(precision, clipped_by)
    assert refused.value.where == where
    assert len(str(refused.value).splitlines()) >= 2


def test_settings_of_deepspeeds_own_and_other_stages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInputError, match="stage is 1"):
        ZeroStrategy(stage=1)  # type: ignore[arg-type]
    monkeypatch.setenv("PL_DEEPSPEED_CONFIG_PATH", "settings.json")
    with pytest.raises(BadInputError, match="PL_DEEPSPEED_CONFIG_PATH names a file"):
        CpuZeroStrategy().check("32-true", "norm")


def test_a_trainer_on_a_cpu_is_refused_before_weights_are_loaded() -> None:
    trainer = Trainer(accelerator="cpu", strategy=ZeroStrategy(), logger=False)
    with pytest.raises(BadInputError, match="DeepSpeed is for GPUs"):
        check_trainer(trainer)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_under_other_strategies(tmp_path: Path) -> None:
    """Two replicas, two ranks of stage 2, one process, two ranks of stage 3; each but the last killed at once."""
    words = [*words_of(tmp_path, *AS_SHARED_OUT), "--trainer.max_steps", "12", "--save_every_n_steps", "3"]
    fitted_alone(words, tmp_path / "alone", torch.nn.functional.linear)
    run = tmp_path / "run"
    for ranks, stage, killed_at in ((2, 0, 4), (2, 2, 7), (1, 0, 10)):
        with pytest.raises(RanksFailedError, match="exit code -9"):
            fitted_on_ranks(words, run, ranks, stage, killed_at)
        latest = max(folder.name for folder in (run / "checkpoints").glob("step=*"))
        assert latest == f"step={killed_at - 1:06d}"
        assert not [path for path in run.rglob("*") if path.suffix in (".pt", ".distcp", ".ckpt", ".bin")]
    fitted_on_ranks(words, run, 2, 3)
    assert sorted(folder.name for folder in (run / "checkpoints").iterdir()) == ["step=000009", "step=000012"]
    torch.testing.assert_close(adapter_of(run), adapter_of(tmp_path / "alone"), rtol=0, atol=5e-6)
