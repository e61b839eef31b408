"""A run that a callback ends early is complete, says why, and is the same after kills."""

import json
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer

from callbacks.step_checkpoint import StepCheckpoint
from experiments.configuration.cli import parse_experiment
from experiments.runs.tuning import fit
from tests.support.small_experiment import small_words

STEPS = 20


class KilledProcess(BaseException):
    """Stands for SIGKILL: nothing gets to clean up."""


class KillAt(Callback):
    """Ends the process in a hook of a step, once what the hook is about has been done."""

    def __init__(self, hook: str, step: int) -> None:
        self.hook, self.step = hook, step

    def _kill(self, hook: str, trainer: Trainer) -> None:
        if hook == self.hook and trainer.global_step == self.step:
            raise KilledProcess

    def on_after_backward(self, trainer: Trainer, *_: Any) -> None:
        self._kill("in the next step", trainer)

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._kill("in validation", trainer)

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        self._kill("at the end", trainer)


def stopping(folder: Path, monitor: str) -> list[str]:
    """Returns words of a run that waits for what never comes, in epochs of three steps, and gives up in the third."""
    arguments = {"monitor": monitor, "min_delta": 100.0, "patience": 2}
    callbacks = [{"class_path": "EarlyStopping", "init_args": arguments}]
    words = [*small_words(folder, batch_size=4, steps=STEPS), "--data.validation_fraction", "0.5"]
    return [*words, "--save_every_n_steps", "1", "--trainer.callbacks", json.dumps(callbacks)]


def files(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in ("adapter/adapter_model.safetensors", "metrics.csv")}


def killed(words: list[str], run: Path, hook: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = parse_experiment(words)
    experiment.trainer_config["callbacks"] = [*(experiment.trainer_config["callbacks"] or []), KillAt(hook, step)]
    with monkeypatch.context() as patch:
        patch.setattr(StepCheckpoint, "on_exception", lambda *_: None)
        with pytest.raises(KilledProcess):
            fit(experiment, folder=run)


@pytest.mark.parametrize("monitor", [pytest.param("train/loss", marks=pytest.mark.slow), "val/loss"])
def test_a_run_that_is_stopped_early_is_complete_and_equal_after_kills(tmp_path, monkeypatch, capsys, monitor):
    words = stopping(tmp_path, monitor)
    whole = fit(parse_experiment(words), folder=tmp_path / "whole")
    completed = json.loads((whole / "run.json").read_text())["completed"]
    assert completed["optimizer_steps"] == 9
    assert monitor in completed["stopped_by"]
    assert "complete after 9 of 20 steps" in capsys.readouterr().out
    cut = tmp_path / "cut"
    for hook, step in [("in the next step", 2), ("in the next step", 3), ("in validation", 6), ("at the end", 9)]:
        killed(words, cut, hook, step, monkeypatch)
        assert "completed" not in json.loads((cut / "run.json").read_text())
    fit(parse_experiment(words), folder=cut)
    assert json.loads((cut / "run.json").read_text())["completed"]["optimizer_steps"] == 9
    assert files(cut) == files(whole)
    capsys.readouterr()
    fit(parse_experiment(words), folder=cut)
    assert "already tuned" in capsys.readouterr().out
    assert files(cut) == files(whole)
