"""Every method, with dropout wherever it has some: stopped, resumed and reloaded without a changed bit."""

import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import Tensor
from torch.utils.data import Dataset

from callbacks.step_checkpoint import StepCheckpoint
from experiments.configuration.cli import Experiment, parse_experiment
from experiments.runs.loading import experiment_of_run, load_run
from experiments.runs.prepare import check_experiment
from experiments.runs.tuning import fit
from lightning_m2pt.answering.greedy import GreedyAnswer, greedy_answers
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.templates import VICUNA_V1
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.methods.trained_parameters import freeze_all_but_declared
from lightning_m2pt.runs.loaded_model import AnswerLoss, Asked, LoadedModel
from lightning_m2pt.storage.adapter_base import AdapterBase
from lightning_m2pt.storage.adapter_folder import check_adapter, declared_tensors, load_adapter, save_adapter
from lightning_m2pt.storage.checkpoint import latest_checkpoint
from lightning_m2pt.storage.checkpoint_io import VerifiedCheckpointIO
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.optimizer import AdamW
from lightning_m2pt.tuning.sample_order import OrderedSampler, ResumableLoader
from tests.callbacks.test_step_checkpoint import assert_same, final_state
from tests.methods.test_every_method import METHODS
from tests.support.small_experiment import checked, small_words
from tests.tuning.test_training import StopAtStep

WITH_DROPOUT: dict[str, Callable[[], Method]] = {
    "m2pt with dropout": lambda: M2PT(5, 4, dropout=0.3),
    "lora with dropout": lambda: Lora(2, dropout=0.3, vision=True),
    "ptum prefix with dropout": lambda: PrefixTuning(4, dropout=0.3),
    "ptum prefix reparameterised with dropout": lambda: PrefixTuning(4, reparameterisation=6, dropout=0.3),
    "lora and visual prompts with dropout": lambda: Combined(
        [Lora(2, dropout=0.3), M2PT(5, 0, interaction=False, dropout=0.3)]
    ),
}
EVERY_METHOD = METHODS | WITH_DROPOUT
SAMPLES, BATCH_SIZE, MICRO_BATCH = 10, 4, 2
STEPS = 5
"""Two steps an epoch."""


class Numbers(Dataset[int]):
    """Sample n is the number n."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, position: int) -> int:
        return position


def collate(numbers: list[int]) -> Batch:
    return random_batch(size=len(numbers), seed=sum(number * SAMPLES**place for place, number in enumerate(numbers)))


def attached_module(folder: Path, name: str, seed: int = 7) -> TuningModule:
    """Returns a module whose method starts as in training, on a backbone that is the same every time."""
    backbone, method = random_backbone(folder), EVERY_METHOD[name]()
    method.check(backbone.shape)
    method.build(backbone, torch.Generator().manual_seed(seed))
    module = TuningModule(backbone, method, AdamW(learning_rate=0.01))
    freeze_all_but_declared(module, method)
    method.attach(backbone)
    return module


def train(folder: Path, name: str, *callbacks: Callback) -> TuningModule:
    folder.mkdir(exist_ok=True)
    module = attached_module(folder, name)
    seed_everything(3, verbose=False)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        max_epochs=-1,
        accumulate_grad_batches=BATCH_SIZE // MICRO_BATCH,
        callbacks=[*callbacks, StepCheckpoint(folder / "checkpoints", every_n_steps=100)],
        plugins=[VerifiedCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = ResumableLoader(
        Numbers(), OrderedSampler(SAMPLES, 0, BATCH_SIZE, MICRO_BATCH), lambda _epoch, _step: 3 * BATCH_SIZE, collate
    )
    newest = latest_checkpoint(folder / "checkpoints")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader, ckpt_path=newest and str(newest), weights_only=False)
    return module


@pytest.mark.parametrize("name", EVERY_METHOD)
def test_a_stopped_run_resumes_bit_for_bit(tmp_path: Path, name: str) -> None:
    """Stopped inside an epoch and at the end of one."""
    start = declared_tensors(attached_module(tmp_path, name).method)
    whole = declared_tensors(train(tmp_path / "whole", name).method)
    for stop_after in (2, 3):
        with pytest.raises(SystemExit):
            train(tmp_path / "cut", name, StopAtStep(stop_after, signal.SIGTERM))
        assert final_state(tmp_path / "cut")["global_step"] == stop_after
    resumed = train(tmp_path / "cut", name)
    assert_same(declared_tensors(resumed.method), whole)
    assert_same(final_state(tmp_path / "cut"), final_state(tmp_path / "whole"))
    assert all(not torch.equal(start[tensor], whole[tensor]) for tensor in start)


class OtherRandomState(Callback):
    """Draws from the random generator once, before the third step."""

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            torch.rand(1)


@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_dropout_is_on_in_training(tmp_path: Path, name: str) -> None:
    """Else the test above would say nothing of random states."""
    one, other = train(tmp_path / "one", name), train(tmp_path / "other", name, OtherRandomState())
    first, second = declared_tensors(one.method), declared_tensors(other.method)
    assert any(not torch.equal(first[tensor], second[tensor]) for tensor in first)


def answers_and_logits(module: TuningModule) -> tuple[list[GreedyAnswer], Tensor]:
    module.eval()
    with torch.inference_mode():
        logits = module.backbone.logits(module.backbone(random_batch()).hidden_states)
        return greedy_answers(module.backbone, random_batch(), max_new_tokens=4, end_token_id=0), logits


@pytest.mark.parametrize("name", EVERY_METHOD)
def test_an_adapter_in_a_fresh_object_answers_like_the_model_that_trained_it(tmp_path: Path, name: str) -> None:
    tuned = train(tmp_path / "run", name)
    save_adapter(tmp_path / "adapter", tuned.method, AdapterBase("random", "fingerprint"), "card")
    fresh = attached_module(tmp_path, name, seed=8)
    answers, logits = answers_and_logits(tuned)
    assert not torch.equal(answers_and_logits(fresh)[1], logits)
    check_adapter(tmp_path / "adapter", fresh.method, "fingerprint")
    load_adapter(tmp_path / "adapter", fresh.method)
    reloaded_answers, reloaded_logits = answers_and_logits(fresh)
    assert torch.equal(reloaded_logits, logits)
    assert reloaded_answers == answers


@pytest.mark.parametrize(
    ("config", "method_words"),
    [
        ("experiments/lora_base.yaml", ["--model.method.dropout", "0.3"]),
        ("experiments/lora_visual_base.yaml", []),
        ("experiments/lora_m2pt_base.yaml", ["--trainer.max_steps", "4"]),
        ("experiments/full_prompts_base.yaml", ["--trainer.max_steps", "4"]),
        ("experiments/ptum_prefix_base.yaml", ["--model.method.reparameterisation", "8"]),
    ],
    ids=["lora", "lora and visual prompts", "lora and m2pt", "full and prompts", "prefix"],
)
def test_a_run_read_back_from_its_folder_answers_like_the_model_that_trained_it(
    tmp_path: Path, config: str, method_words: list[str]
) -> None:
    words = [*small_words(tmp_path, config, steps=2), "--model.optimizer.learning_rate", "0.02", *method_words]
    trained = parse_experiment(words)
    run = fit(trained, folder=tmp_path / "run")
    reloaded = experiment_of_run(run)
    check_experiment(reloaded)
    load_run(run, reloaded)
    assert_same(declared_tensors(reloaded.model.method), declared_tensors(trained.model.method))
    answers, losses = answers_and_losses(reloaded)
    assert (answers, losses) == answers_and_losses(trained)
    untuned = checked(words)
    assert answers_and_losses(untuned)[1] != losses


def answers_and_losses(experiment: Experiment) -> tuple[list[str], list[AnswerLoss]]:
    """Returns greedy answers to questions about invented pictures, and how likely other answers are."""
    model = LoadedModel(experiment.model, VICUNA_V1, torch.device("cpu"))
    pictures = numpy.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), dtype=numpy.uint8)
    questions = [Asked(f"What is number {place}?", picture, "a test") for place, picture in enumerate(pictures)]
    return model.answers(questions, max_new_tokens=6), model.losses(questions, ["yes", "no", "a red circle"])
