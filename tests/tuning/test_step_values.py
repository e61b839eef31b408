"""What one step and one validation measure, by value, on a model whose right answers are made to measure."""

from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from lightning_m2pt.inputs.batch import IGNORED_LABEL, Batch
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.methods.trained_parameters import trained_parameters
from lightning_m2pt.testing.random_backbone import VOCABULARY, random_batch
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.optimizer import AdamW
from tests.support.small_training import Gradients, loader_of, module_with, one_step, small_trainer


def labels_and_losses(module: TuningModule, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Returns log-probabilities, the places of supervised tokens and the tokens, read off the whole sequence."""
    with torch.no_grad():
        output = module.backbone(batch)
        logits = module.backbone.logits(output.hidden_states).double()
    places = (output.labels[:, 1:] != IGNORED_LABEL).nonzero()
    return logits.log_softmax(dim=-1), places, output.labels


def answered(module: TuningModule, batch: Batch, wrong: dict[int, list[int]]) -> Batch:
    """Returns the batch with the model's own answers as labels, but for some tokens.

    Args:
        module: The model; all tokens of the question are given, so a label changes no logits.
        batch: What is asked.
        wrong: For a sample the numbers of its answer tokens that are another token.
    """
    log_probabilities, places, _ = labels_and_losses(module, batch)
    labels = batch.labels.clone()
    for sample in range(len(batch)):
        positions = (labels[sample] != IGNORED_LABEL).nonzero()[:, 0].tolist()
        rows = [int(row) for of, row in places if of == sample]
        for number, (position, row) in enumerate(zip(positions, rows, strict=True)):
            token = int(log_probabilities[sample, row].argmax())
            labels[sample, position] = (token + 1) % VOCABULARY if number in wrong.get(sample, []) else token
    return replace(batch, labels=labels)


def mean_loss(module: TuningModule, batches: list[Batch]) -> float:
    """Returns the cross-entropy per supervised token over batches of different lengths."""
    losses: list[float] = []
    for batch in batches:
        log_probabilities, places, labels = labels_and_losses(module, batch)
        losses += [-float(log_probabilities[sample, row, labels[sample, row + 1]]) for sample, row in places]
    return sum(losses) / len(losses)


def test_validation_counts_whole_answers_and_weighs_every_token_alike(tmp_path):
    """Two samples of four tokens, one with its last token wrong; three of one; a batch of one sample, all wrong."""
    module = module_with(tmp_path, M2PT(2, 1)).eval()
    batches = [
        answered(module, random_batch(2, answer=4, seed=1), {0: [3]}),
        answered(module, random_batch(4, answer=2, seed=2), {1: [0]}),
        answered(module, random_batch(1, answer=6, seed=3), {0: [0, 1, 2, 3, 4]}),
    ]
    measured = small_trainer().validate(module, loader_of(batches), verbose=False)[0]
    assert measured["val/answer_accuracy"] == pytest.approx(4 / 7)
    assert measured["val/loss"] == pytest.approx(mean_loss(module, batches), rel=1e-5)
    losses = [mean_loss(module, [batch]) for batch in batches]
    assert abs(sum(losses) / 3 - mean_loss(module, batches)) > 0.01  # the mean of means is another number


@pytest.mark.parametrize("position", range(4))
def test_one_wrong_token_anywhere_makes_an_answer_wrong(tmp_path, position):
    module = module_with(tmp_path, M2PT(2, 1)).eval()
    for wrong, expected in (({}, 1.0), ({1: [position]}, 2 / 3), ({0: [position], 1: [0, 1, 2, 3]}, 1 / 3)):
        batch = answered(module, random_batch(3, text=11, answer=5), wrong)
        measured = small_trainer().validate(module, loader_of([batch]), verbose=False)[0]
        assert measured["val/answer_accuracy"] == pytest.approx(expected)


def test_a_second_validation_does_not_remember_the_first(tmp_path):
    module, trainer = module_with(tmp_path, M2PT(2, 1)).eval(), small_trainer()
    for wrong, expected in (({}, 1.0), ({0: [0]}, 0.5)):
        batches = [answered(module, random_batch(2, answer=4, seed=1), wrong)]
        measured = trainer.validate(module, loader_of(batches), verbose=False)[0]
        assert measured["val/answer_accuracy"] == expected
        assert measured["val/loss"] == pytest.approx(mean_loss(module, batches), rel=1e-5)


class TrainLoss(Callback):
    """Keeps the logged loss of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.losses.append(float(trainer.callback_metrics["train/loss"]))


@pytest.mark.parametrize("average", ["step", "micro_batch"])
def test_a_steps_loss_and_gradients_are_the_average_that_was_asked_for(tmp_path, average):
    """Micro-batches of 2, 10 and 5 tokens: per token of the step, or the mean of the three means; two steps."""
    module = module_with(tmp_path, M2PT(2, 1), loss_average=average, optimizer=AdamW(0.0))
    steps = [
        one_step([random_batch(1, answer=2 + 1, seed=10 * number + 1), random_batch(3, answer=4, seed=10 * number + 2)])
        for number in range(2)
    ]
    parameters = trained_parameters(module)
    expected_losses, expected_gradients = [], []
    for batches in steps:
        rows = [supervised_rows(module.backbone, batch) for batch in batches]
        tokens = [len(each.losses) for each in rows]
        assert tokens[0] != tokens[1]
        if average == "step":
            loss = sum(each.losses.sum() for each in rows) / sum(tokens)
        else:
            loss = sum(each.losses.mean() for each in rows) / len(rows)
        expected_losses.append(float(loss.detach()))
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        expected_gradients.append(dict(zip(parameters, found, strict=True)))
    gradients, losses = Gradients(), TrainLoss()
    trainer = small_trainer(gradients, losses, max_steps=2, accumulate_grad_batches=2)
    trainer.fit(module, loader_of([batch for batches in steps for batch in batches]))
    assert losses.losses == pytest.approx(expected_losses, rel=1e-5)
    for found, expected in zip(gradients.steps, expected_gradients, strict=True):
        for name, gradient in expected.items():
            if gradient is not None:
                assert torch.allclose(found[name].float(), gradient, rtol=1e-3, atol=1e-5), name


DROPPING = {
    "m2pt": lambda dropout: M2PT(4, 3, interaction=False, dropout=dropout),
    "lora": lambda dropout: Lora(2, dropout=dropout, interaction=False),
    "prefix": lambda dropout: PrefixTuning(3, interaction=False, dropout=dropout),
}


class Losses(Callback):
    """Keeps the loss of every training step; the validation's stands in the Trainer."""

    def __init__(self) -> None:
        self.train: list[float] = []
        self.validation: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.train.append(float(outputs["loss"]))

    def on_validation_end(self, trainer, pl_module) -> None:
        self.validation.append(float(trainer.callback_metrics["val/loss"]))


@pytest.mark.parametrize("name", DROPPING)
def test_dropout_draws_in_training_and_never_in_validation(tmp_path, name):
    """Nothing moves, so every step without dropout has the same loss, and with it another one each time."""
    batches = one_step([random_batch(3, answer=4, seed=1)])
    measured = {}
    for dropout in (0.0, 0.5):
        module = module_with(tmp_path, DROPPING[name](dropout), optimizer=AdamW(0.0))
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in trained_parameters(module).values():  # what starts at zero drops nothing
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        torch.manual_seed(1)
        losses = Losses()
        trainer = small_trainer(losses, max_steps=3, val_check_interval=1, check_val_every_n_epoch=1)
        trainer.fit(module, loader_of(batches), loader_of(batches))
        measured[dropout] = losses
    still, dropped = measured[0.0], measured[0.5]
    assert len({round(loss, 6) for loss in still.train}) == 1
    assert len({round(loss, 4) for loss in dropped.train}) == 3  # the validations in between left dropout on
    assert still.validation == pytest.approx([still.train[0]] * 3, rel=1e-5)
    assert dropped.validation == pytest.approx(still.validation, rel=1e-6)


@pytest.mark.parametrize("name", DROPPING)
def test_the_share_that_is_dropped_is_the_one_that_was_set(tmp_path, name):
    module = module_with(tmp_path, DROPPING[name](0.25))
    dropouts = [each for each in module.method.modules() if isinstance(each, torch.nn.Dropout)]
    assert dropouts
    assert {each.p for each in dropouts} == {0.25}
