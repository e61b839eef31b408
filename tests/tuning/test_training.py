"""Training as a whole: what moves, what stays, and that splitting a step or a run changes nothing."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy
from safetensors.torch import load_file
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaMLP

from experiments.configuration.cli import parse_experiment
from experiments.runs.folder import deciding, made_with, run_folder
from experiments.runs.training import run_the_same_layers_on_all_ranks
from experiments.runs.tuning import fit
from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.errors import BadInputError, DivergedError
from lightning_m2pt.methods.trained_parameters import trained_parameters
from lightning_m2pt.parallel.fully_sharded import FullyShardedStrategy
from lightning_m2pt.parallel.zero import ZeroStrategy
from lightning_m2pt.system.tensor_hashes import hash_tensors
from tests.support.small_experiment import checked, fitted, small_words


def adapter(run: Path) -> dict[str, Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_only_the_declared_tensors_move(tmp_path):
    words = small_words(tmp_path, steps=3)
    untuned = checked(words)
    frozen = hash_tensors(untuned.model.backbone.state_dict())
    before = {name: parameter.detach().clone() for name, parameter in trained_parameters(untuned.model).items()}
    experiment, run = fitted(words)
    after = trained_parameters(experiment.model)
    assert hash_tensors(experiment.model.backbone.state_dict()) == frozen
    assert set(adapter(run)) == {name.removeprefix("method.") for name in after}
    # Same seed, so the same start: every tensor has moved from it.
    assert all(not torch.equal(before[name], parameter.detach()) for name, parameter in after.items())


# Rounding differs between batch shapes, and Adam's first steps, rate x sign(gradient), blow it up where a gradient is
# nearly zero: a float64 backbone and a larger epsilon take that away, so that what is left is the loss and the order.
EXACT = [
    *("--model.backbone.dtype", "float64"),
    *("--model.optimizer.learning_rate", "1e-3"),
    *("--model.optimizer.epsilon", "1e-4"),
]


def test_micro_batches_do_not_change_the_result(tmp_path):
    """1 x 8 = 4 x 2 after ten optimizer steps, although answers differ in length."""
    words = [*small_words(tmp_path), *EXACT]
    _, whole = fitted(words, run=tmp_path / "whole")
    _, split = fitted([*words, "--data.micro_batch_size", "2"], run=tmp_path / "split")
    assert largest_difference(adapter(whole), adapter(split)) < 1e-6


def test_means_of_means_do_change_it(tmp_path):
    """The published script's average depends on the split: the option exists and does what it says."""
    words = [*small_words(tmp_path, steps=5), "--model.loss_average", "micro_batch"]
    _, whole = fitted(words, run=tmp_path / "whole")
    _, split = fitted([*words, "--data.micro_batch_size", "1"], run=tmp_path / "split")
    assert largest_difference(adapter(whole), adapter(split)) > 1e-4


def test_two_processes_equal_one(tmp_path):
    """DDP on two CPU processes trains the tensors of one process."""
    words = [*small_words(tmp_path), *EXACT]
    _, one = fitted(words, run=tmp_path / "one")
    command = ["fit", *words, *DDP, "--run", str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "lightning_m2pt.main", *command], check=True, timeout=300, env=environment)
    assert largest_difference(adapter(one), adapter(tmp_path / "two")) < 1e-6


DDP = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]


class StopAtStep(Callback):
    """Sends this process what a terminal's Ctrl-C or a scheduler sends, after a given optimizer step."""

    def __init__(self, step: int, number: signal.Signals) -> None:
        self.step, self.number = step, number

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("stop_after", "micro_batch"), [(3, "4"), (4, "4"), (5, "2")], ids=str)
def test_a_stopped_run_resumes_bit_for_bit_with_dropout(tmp_path, stop_after, micro_batch):
    """Two steps an epoch, so the stops lie inside, at and behind epoch borders; dropout draws from the RNG."""
    words = [*small_words(tmp_path, steps=7), "--model.method.dropout", "0.2", "--data.micro_batch_size", micro_batch]
    _, straight = fitted(words, run=tmp_path / "straight")
    experiment, stopped = parse_experiment(words), tmp_path / "stopped"
    experiment.trainer_config["callbacks"] = [StopAtStep(stop_after, signal.SIGTERM)]
    with pytest.raises(SystemExit) as ended:
        fit(experiment, folder=stopped)
    assert ended.value.code == 143
    assert not (stopped / "adapter").exists()
    fitted(words, run=stopped)
    assert largest_difference(adapter(straight), adapter(stopped)) == 0.0
    rows = list(csv.DictReader((stopped / "metrics.csv").open()))
    assert [row["step"] for row in rows] == [row["step"] for row in csv.DictReader((straight / "metrics.csv").open())]
    checkpoints = sorted((stopped / "checkpoints").iterdir())
    assert 1 <= len(checkpoints) <= 2
    assert json.loads((checkpoints[-1] / "manifest.json").read_text())["step"] == 7


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_run_as_long_as_its_epochs_resumes_bit_for_bit(tmp_path, stop_after):
    """Counting its steps, for the schedule, makes its loader before the checkpoint is read."""
    words = [*small_words(tmp_path, steps=-1), "--trainer.max_epochs", "2", "--model.method.dropout", "0.2"]
    _, straight = fitted(words, run=tmp_path / "straight")
    experiment, stopped = parse_experiment(words), tmp_path / "stopped"
    experiment.trainer_config["callbacks"] = [StopAtStep(stop_after, signal.SIGTERM)]
    with pytest.raises(SystemExit):
        fit(experiment, folder=stopped)
    fitted(words, run=stopped)
    assert largest_difference(adapter(straight), adapter(stopped)) == 0.0
    assert (stopped / "metrics.csv").read_bytes() == (straight / "metrics.csv").read_bytes()


def test_tuning_computes_every_layer_twice_if_activations_are_recomputed(tmp_path, monkeypatch):
    """Loading leaves the backbone in evaluation mode, in which a layer never recomputes, and Lightning leaves it so."""
    calls: Counter[str] = Counter()
    whole = LlamaMLP.forward
    monkeypatch.setattr(
        "lightning_m2pt.tuning.module.refuse_unless_like_library", lambda *_: None
    )  # it calls layers, too
    for setting in ("false", "true"):
        with monkeypatch.context() as patch:
            patch.setattr(LlamaMLP, "forward", lambda mlp, rows, key=setting: calls.update([key]) or whole(mlp, rows))
            words = small_words(tmp_path / setting, steps=1)
            fitted([*words, "--model.backbone.activation_checkpointing", setting])
    assert calls["true"] == 2 * calls["false"] > 0


def test_a_start_says_what_changes_the_last_bits_alone(tmp_path):
    words = ["--model.shortcuts.shared_rows_once", "false", "--model.backbone.activation_checkpointing", "true"]
    experiment = parse_experiment([*small_words(tmp_path), *words])
    start = made_with(experiment)["changes_last_bits"]
    assert start["shortcuts"] == {"shared_rows_once": False, "supervised_rows_only": True}
    assert start["activation_checkpointing"] is True
    assert start["path"] == "auto"


@pytest.mark.parametrize(
    ("strategy", "is_shared_out"),
    [
        (SingleDeviceStrategy, False),
        (ZeroStrategy, False),
        (partial(ZeroStrategy, 3), True),
        (FullyShardedStrategy, True),
    ],
)
def test_ranks_that_share_out_weights_run_the_same_layers(tmp_path, strategy, is_shared_out):
    experiment = parse_experiment(small_words(tmp_path))
    run_the_same_layers_on_all_ranks(experiment, strategy())
    assert experiment.model.shortcuts == (EVERY_ROW if is_shared_out else Shortcuts())


def test_the_same_command_finds_a_finished_run(tmp_path, capsys):
    words = small_words(tmp_path, steps=2)
    _, run = fitted(words)
    before = {path: path.stat().st_mtime_ns for path in (run / "adapter").iterdir()}
    _, again = fitted(words)
    assert again == run
    assert "already tuned" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (run / "adapter").iterdir()} == before


def test_a_foreign_folder_is_left_alone(tmp_path):
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(BadInputError, match="no run's folder"):
            fit(parse_experiment(small_words(tmp_path, steps=1)), force=force, folder=foreign)
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["--trainer.strategy", "ddp_spawn"], "trainer.strategy"),
        (["--trainer.precision", "bf16-true"], "trainer.precision"),
        (["--trainer.max_epochs", "-5"], "trainer"),
        (["--trainer.gradient_clip_algorithm", "foo"], "trainer"),
        (["--trainer.devices", "0"], "trainer"),
    ],
    ids=str,
)
def test_a_refused_start_changes_nothing(tmp_path, words, key):
    _, run = fitted(small_words(tmp_path, steps=1), run=tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(BadInputError) as refused:
        fit(parse_experiment([*small_words(tmp_path, steps=1), *words]), force=True, folder=run)
    assert key in refused.value.where
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_that_stopped_short_goes_on(tmp_path, capsys):
    words = small_words(tmp_path, steps=6)
    experiment = parse_experiment([*words, "--trainer.max_time", "00:00:00:00"])
    run = fit(experiment, folder=tmp_path / "run")
    assert "the same command goes on" in capsys.readouterr().out
    fitted(words, run=run)
    assert json.loads((run / "run.json").read_text())["completed"]["optimizer_steps"] == 6


def test_a_run_folder_refuses_other_settings_by_name(tmp_path):
    _, run = fitted(small_words(tmp_path, steps=2))
    with pytest.raises(BadInputError, match="seed was 0 in this run and is 1 now"):
        fitted([*small_words(tmp_path, steps=2), "--seed_everything", "1"], run=run)
    record = json.loads((run / "run.json").read_text())
    record["deciding"]["of_another_version"] = 3
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(BadInputError, match="of_another_version was 3 in this run and is null now"):
        fitted(small_words(tmp_path, steps=2), run=run)


def test_paths_and_devices_do_not_change_the_run_folder(tmp_path):
    _, run = fitted(small_words(tmp_path, steps=2))
    words = [*small_words(tmp_path, steps=2), "--data.micro_batch_size", "4", "--data.num_workers", "1"]
    assert fitted(words)[1] == run


def test_grouping_by_length_decides_and_its_absence_leaves_old_names(tmp_path):
    words = small_words(tmp_path, steps=2)
    plain, grouped = (parse_experiment([*words, "--data.group_by_length", number]) for number in ("0", "1"))
    assert "group_by_length" not in deciding(plain)["data"]["init_args"]
    assert deciding(grouped)["data"]["init_args"]["group_by_length"] == 1
    assert run_folder(parse_experiment(words)) == run_folder(plain) != run_folder(grouped)


def test_the_injection_path_is_not_deciding_inside_a_combination_either(tmp_path):
    words = small_words(tmp_path, "experiments/lora_visual_base.yaml")
    lora = {"class_path": "lightning_m2pt.methods.lora.Lora", "init_args": {"interaction": False}}
    folders = []
    for arguments in ({"path": "auto"}, {"path": "token"}, {"visual_length": 9}):
        visual = {"class_path": "lightning_m2pt.methods.m2pt.M2PT", "init_args": {"textual_length": 0, **arguments}}
        folders.append(run_folder(parse_experiment([*words, "--model.method.methods", json.dumps([lora, visual])])))
    assert folders[0] == folders[1] != folders[2]


class PoisonedLoss(Callback):
    """Turns a prompt into NaN before the second step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == 1:
            with torch.no_grad():
                next(iter(trained_parameters(pl_module).values())).fill_(float("nan"))


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path):
    experiment = parse_experiment(small_words(tmp_path, steps=4))
    experiment.trainer_config["callbacks"] = [PoisonedLoss()]
    with pytest.raises(DivergedError, match="step"):
        fit(experiment, folder=tmp_path / "run")
    assert not (tmp_path / "run" / "adapter").exists()


def test_metrics_and_record_hold_what_was_trained(tmp_path):
    _, run = fitted(small_words(tmp_path, steps=3))
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows] == [1, 2, 3]
    assert all(float(row["train/loss"]) > 0 for row in rows)
    assert all(0 < float(row["train/padding"]) < 1 for row in rows)
    record = json.loads((run / "run.json").read_text())
    assert record["toggles"]["visual_prompts"] is True
    assert record["completed"]["optimizer_steps"] == 3
    assert record["deciding"]["seed"] == 0
    assert list((run / "tb").glob("events*"))
    assert "visual_prompts" in (run / "log.txt").read_text()


def test_textual_prompts_can_start_from_the_vocabulary(tmp_path):
    words = [*small_words(tmp_path), "--model.method.init", "vocabulary"]
    model = checked(words).model
    table = model.backbone.token_embedding().weight
    row = model.method.textual_prompts.rows["0"][0, 0]
    assert bool((table == row).all(dim=1).any())
