"""Whole experiments on shared-out weights: one process's tensors, samples and checkpoints, also after kills."""

import csv
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from data_modules.vsr import VSR
from experiments.configuration.cli import parse_experiment
from experiments.runs.tuning import fit
from lightning_m2pt.storage.adapter_folder import TENSOR_FILE
from lightning_m2pt.storage.checkpoint import KEPT, latest_checkpoint, step_of
from lightning_m2pt.tuning.module import TuningModule
from tests.support.ranks import RanksFailedError, on_ranks
from tests.support.small_experiment import small_words

STEPS = 12
RATE = "1e-4"
"""A fortieth of what m2pt_base tunes visual prompts with, so that rounding stays rounding."""
FSDP, DDP = (("--config", f"experiments/strategies/{name}.yaml") for name in ("fsdp", "ddp"))
CONFIGS = {
    "m2pt": (),
    "vpt": (),
    "ptum_prefix": (),
    "lora": ("--model.method.dropout", "0"),
    "aprompt": (),
    "adapter": (),
    "layernorm": ("--model.method.vision", "true"),
    "m2pt from words, with its head": ("--model.method.lm_head", "true", "--model.method.init", "vocabulary"),
}
"""Methods and what is said beside their files; the last two begin with copies of shared-out weights."""

Outcome = tuple[dict[str, Tensor], list[list[str]], list[float]]
"""Trained tensors, this rank's sample ids of every step, and the logged losses."""


def words_for(folder: Path, method: str, *extra: str) -> list[str]:
    own = ["--model.optimizer.learning_rate", RATE, "--data.micro_batch_size", "4"]
    return [
        *small_words(folder, f"experiments/{method.split()[0]}_base.yaml", 8, STEPS),
        *own,
        *CONFIGS[method],
        *extra,
    ]


def tune(words: Sequence[str], run: Path, killed_at: int = 0) -> Outcome:
    """Tunes in a run's folder; every process dies at the beginning of that step."""
    experiment = parse_experiment(list(words))
    ids: dict[int, list[str]] = {}
    losses: list[float] = []
    own_step = TuningModule.training_step

    def step(self: Any, batch: Any, batch_idx: int) -> Any:
        if killed_at and self.trainer.global_step + 1 == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        ids.setdefault(self.trainer.global_step + 1, []).extend(batch.sample_ids)
        outcome = own_step(self, batch, batch_idx)
        losses.append(float(outcome["loss"].detach()))
        return outcome

    TuningModule.training_step = step  # type: ignore[method-assign]
    try:
        fit(experiment, folder=run)
    finally:
        TuningModule.training_step = own_step  # type: ignore[method-assign]
    tensors = {name: each.detach().clone() for name, each in experiment.model.method.named_tensors().items()}
    return tensors, [ids[number] for number in sorted(ids)], losses


def on(ranks: int, words: Sequence[str], run: Path, killed_at: int = 0) -> list[Outcome]:
    """Tunes on so many ranks; of those that are killed nothing is returned."""
    devices = ["--trainer.devices", str(ranks)]
    if not killed_at:
        return on_ranks(ranks, tune, [*words, *devices], run, timeout=280)
    with pytest.raises(RanksFailedError) as killed:
        on_ranks(ranks, tune, [*words, *devices], run, killed_at, timeout=280)
    assert any("exit code -9" in reason for reason in killed.value.reasons.values()), killed.value
    return []


def largest_difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert set(found) == set(expected)
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


@pytest.mark.slow
@pytest.mark.parametrize("method", CONFIGS)
def test_two_ranks_tune_the_tensors_of_one_process_from_the_same_samples(tmp_path: Path, method: str) -> None:
    words = words_for(tmp_path, method)
    first, second = on(2, [*words, *FSDP], tmp_path / "sharded")
    [alone] = on(1, words, tmp_path / "alone")
    assert largest_difference(first[0], second[0]) == 0
    assert largest_difference(first[0], alone[0]) <= 1e-6
    together = [sorted(ids + others) for ids, others in zip(first[1], second[1], strict=True)]
    assert together == [sorted(ids) for ids in alone[1]]
    assert len(together) == STEPS


@pytest.mark.slow
def test_losses_on_a_base_in_bfloat16_are_those_of_replicas(tmp_path: Path) -> None:
    words = [*words_for(tmp_path, "m2pt", "--model.method.path", "token"), "--model.backbone.dtype", "bfloat16"]
    sharded = on(2, [*words, *FSDP], tmp_path / "sharded")
    replicas = on(2, [*words, *DDP], tmp_path / "replicas")
    for ours, theirs in zip(sharded, replicas, strict=True):
        assert ours[2] == theirs[2]
        assert largest_difference(ours[0], theirs[0]) == 0


def test_a_killed_run_goes_on_and_keeps_our_checkpoints(tmp_path: Path) -> None:
    words = [*words_for(tmp_path, "m2pt"), "--save_every_n_steps", "2"]
    on(2, [*words, *FSDP], tmp_path / "cut", killed_at=7)
    newest = latest_checkpoint(tmp_path / "cut" / "checkpoints")
    assert newest is not None
    assert step_of(newest) == 6
    resumed = on(2, [*words, *FSDP], tmp_path / "cut")
    straight = on(2, [*words, *FSDP], tmp_path / "straight")
    assert largest_difference(resumed[0][0], straight[0][0]) == 0
    assert resumed[0][1] == straight[0][1][6:]
    folders = sorted((tmp_path / "cut" / "checkpoints").glob("step=*"))
    assert len(folders) == KEPT
    trained = sum(each.numel() * each.itemsize for each in straight[0][0].values())
    for folder in folders:
        assert {path.suffix for path in folder.iterdir()} <= {".safetensors", ".json"}
        assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) <= 3.1 * trained


@pytest.mark.slow
def test_a_run_goes_on_with_other_strategies_and_numbers_of_devices(tmp_path: Path) -> None:
    words = [*words_for(tmp_path, "m2pt"), "--save_every_n_steps", "1"]
    run = tmp_path / "cut"
    on(2, [*words, *FSDP], run, killed_at=4)
    on(2, [*words, *DDP], run, killed_at=7)
    on(1, words, run, killed_at=10)
    changed = on(2, [*words, *FSDP], run)
    [alone] = on(1, words, tmp_path / "alone")
    assert largest_difference(changed[0][0], alone[0]) <= 1e-6
    ids = [sorted(ids + others) for ids, others in zip(changed[0][1], changed[1][1], strict=True)]
    assert ids == [sorted(each) for each in alone[1][9:]]


@pytest.mark.slow
def test_world_sizes_one_two_one_on_shared_out_weights(tmp_path: Path) -> None:
    words = [*words_for(tmp_path, "m2pt"), "--save_every_n_steps", "1"]
    run = tmp_path / "cut"
    on(1, [*words, *FSDP], run, killed_at=5)
    on(2, [*words, *FSDP], run, killed_at=9)
    [changed] = on(1, [*words, *FSDP], run)
    [alone] = on(1, words, tmp_path / "alone")
    assert largest_difference(changed[0], alone[0]) <= 1e-6
    assert torch.is_tensor(next(iter(changed[0].values())))


WATCHED = [
    {"class_path": "callbacks.best_adapter.BestAdapter", "init_args": {"monitor": "val/loss"}},
    {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val/loss", "patience": 5}},
    {"class_path": "callbacks.sample_answers.SampleAnswers", "init_args": {"samples": 2, "max_new_tokens": 4}},
    {"class_path": "callbacks.attention_maps.AttentionMaps", "init_args": {"samples": 1, "every_n_steps": 2}},
]


def table_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_whatever_looks_on_or_answers_while_tuning_finds_what_it_finds_on_one_device(tmp_path: Path) -> None:
    """Validation, the best adapter, early stopping, answers and scores as they are, attention: nobody waits."""
    VSR.write_fake(tmp_path / "vsr")
    asked = {"root": str(tmp_path / "vsr"), "template": "vicuna_v1", "batch_size": 4, "max_new_tokens": 5, "limit": 6}
    sets = [{"class_path": "data_modules.vsr.VSR", "init_args": asked}]
    scores = {"benchmarks": sets, "every_n_steps": 4}
    watched = [*WATCHED, {"class_path": "callbacks.benchmark_scores.BenchmarkScores", "init_args": scores}]
    words = [
        *small_words(tmp_path, "experiments/m2pt_base.yaml", 4, 4),
        *("--data.validation_fraction", "0.5", "--validate_every_n_steps", "2", "--data.micro_batch_size", "2"),
        *("--model.optimizer.learning_rate", RATE, "--trainer.callbacks", json.dumps(watched)),
    ]
    sharded, _ = on(2, [*words, *FSDP], tmp_path / "sharded")
    [alone] = on(1, words, tmp_path / "alone")
    assert largest_difference(sharded[0], alone[0]) <= 1e-6
    found, expected = table_of(tmp_path / "sharded"), table_of(tmp_path / "alone")
    assert len(found) == len(expected) == 4
    for row, same in zip(found, expected, strict=True):
        for key in ("train/loss", "val/loss", "val/answer_accuracy", "score/vsr"):
            assert float(row[key] or 0) == pytest.approx(float(same[key] or 0), rel=1e-5), key
    assert any(float(row["val/loss"] or 0) for row in found)
    best, same = (load_file(tmp_path / run / "adapter_best" / TENSOR_FILE) for run in ("sharded", "alone"))
    assert largest_difference(best, same) <= 1e-6


@pytest.mark.slow
def test_mixed_precision_is_that_of_replicas(tmp_path: Path) -> None:
    words = [*words_for(tmp_path, "m2pt", "--model.method.path", "token"), "--trainer.precision", "bf16-mixed"]
    sharded = on(2, [*words, *FSDP], tmp_path / "sharded")
    replicas = on(2, [*words, *DDP], tmp_path / "replicas")
    assert sharded[0][2] == replicas[0][2]
    assert largest_difference(sharded[0][0], replicas[0][0]) == 0
