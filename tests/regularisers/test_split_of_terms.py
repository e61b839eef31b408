"""Terms of the loss over an optimizer step: however it is split, on how many ranks, and what it logs."""

import os
from dataclasses import replace

import pytest
import torch

from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.optimizer import AdamW
from lightning_m2pt.tuning.regularisers.feature_consistency import FeatureConsistency
from tests.support.ranks import on_ranks
from tests.support.regularised.steps import BORDER, DELTA, Logged, distances, parts_of, prompted, with_counts
from tests.support.small_training import Gradients, loader_of, module_with, one_step, small_trainer


def one_training_step(folder, micro_batches: list[Batch], term: FeatureConsistency, **settings):
    """The prompt's gradient, and what was logged."""
    backbone = random_backbone(folder, torch.float64)
    module = TuningModule(backbone, PixelPrompting(BORDER), optimizer=AdamW(1e-3), regularisers=[term])
    module.configure_model()
    prompt = backbone.attachment.pixel_prompt
    with torch.no_grad():
        prompt.delta.add_(0.3 * torch.randn(prompt.delta.shape, generator=torch.Generator().manual_seed(5)))
    gradients, logged = Gradients(), Logged()
    trainer = small_trainer(gradients, logged, max_steps=1, accumulate_grad_batches=len(micro_batches), **settings)
    trainer.fit(module, loader_of(micro_batches))
    return gradients.steps[0][DELTA], logged.steps[0]


def step_of_eight() -> Batch:
    return random_batch(8, dtype=torch.float64, seed=4)


@pytest.mark.parametrize("norm", ["published", "relative"])
def test_a_step_in_parts_is_the_step_and_is_logged_as_it(tmp_path, norm):
    """8 at once, 4 x 2, and the value, the gradient and the share by hand."""
    term = FeatureConsistency(0.7, norm=norm)
    whole, of_whole = one_training_step(tmp_path, parts_of(step_of_eight(), 8), term)
    parts, of_parts = one_training_step(tmp_path, parts_of(step_of_eight(), 2), term)
    assert torch.allclose(whole, parts, rtol=1e-5, atol=1e-7)
    assert of_parts == pytest.approx(of_whole, rel=1e-6)
    plain, of_plain = one_training_step(tmp_path, parts_of(step_of_eight(), 8), FeatureConsistency(1e-30))
    assert of_whole["train/loss"] == pytest.approx(of_plain["train/loss"], rel=1e-6)
    value = of_whole["train/feature_consistency"]
    assert of_whole["train/feature_consistency/share"] == pytest.approx(0.7 * value / of_whole["train/loss"], rel=1e-6)
    module = prompted(tmp_path, PixelPrompting(BORDER), term)
    expected = distances(module, random_batch(8, seed=4), "overlay", relative=norm == "relative")
    assert value == pytest.approx(sum(expected) / 8, rel=1e-4)
    assert not torch.allclose(whole, plain, rtol=1e-2)


def test_weights_add_to_the_gradient(tmp_path):
    """The gradient is that of the cross-entropy and the weight times that of the term."""
    found = [
        one_training_step(tmp_path, parts_of(step_of_eight(), 4), FeatureConsistency(weight))[0]
        for weight in (1e-30, 0.5, 1.5)
    ]
    assert torch.allclose(found[2] - found[0], 3 * (found[1] - found[0]), rtol=1e-6, atol=1e-9)


def test_two_ranks_are_one(tmp_path):
    """2 ranks x 2 x 2 samples of a step of eight."""
    term = FeatureConsistency(0.7)
    expected, of_one = one_training_step(tmp_path, parts_of(step_of_eight(), 8), term)
    parts = parts_of(step_of_eight(), 2)

    def on_rank():
        from lightning.pytorch.strategies import DDPStrategy

        rank = os.environ["RANK"]
        ddp = {"devices": 2, "strategy": DDPStrategy(process_group_backend="gloo"), "use_distributed_sampler": False}
        return one_training_step(tmp_path / rank, parts[int(rank) :: 2], term, **ddp)

    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
    for gradient, of_rank in on_ranks(2, on_rank, timeout=120):
        assert torch.allclose(gradient, expected, rtol=1e-5, atol=1e-7)
        assert of_rank == pytest.approx(of_one, rel=1e-6)


def test_means_of_micro_batches_are_means_here_too(tmp_path):
    term = FeatureConsistency(0.7)
    micro_batches = with_counts([random_batch(1, seed=1), random_batch(3, seed=2)])
    module = prompted(tmp_path, PixelPrompting(BORDER), term, loss_average="micro_batch", optimizer=AdamW(0.0))
    logged = Logged()
    small_trainer(logged, max_steps=1, accumulate_grad_batches=2).fit(module, loader_of(micro_batches))
    means = [distances(module, batch, "overlay", relative=False) for batch in micro_batches]
    expected = sum(sum(each) / len(each) for each in means) / 2
    assert logged.steps[0]["train/feature_consistency"] == pytest.approx(expected, rel=1e-5)


def test_every_step_is_logged_by_itself(tmp_path):
    """Nothing moves, so the second step, of the same samples, is what the first was."""
    module, logged = prompted(tmp_path, PixelPrompting(BORDER), FeatureConsistency(), optimizer=AdamW(0.0)), Logged()
    parts = with_counts([random_batch(1, seed=1), random_batch(3, seed=2)])
    small_trainer(logged, max_steps=2, accumulate_grad_batches=2).fit(module, loader_of([*parts, *parts]))
    assert logged.steps[0]["train/feature_consistency"] > 0
    assert logged.steps[1] == pytest.approx(logged.steps[0], rel=1e-6)


def test_a_step_without_a_picture_has_the_cross_entropy_alone(tmp_path):
    term = FeatureConsistency(0.7)
    batch = random_batch()
    ids = batch.input_ids.masked_fill(batch.input_ids == IMAGE_TOKEN_ID, 5)
    without = replace(batch, input_ids=ids, pixel_values=batch.pixel_values[:0])
    module, logged = prompted(tmp_path, PixelPrompting(BORDER), term), Logged()
    small_trainer(logged, max_steps=1).fit(module, loader_of(with_counts([without])))
    assert logged.steps[0]["train/feature_consistency"] == 0.0
    assert logged.steps[0]["train/loss"] > 0


def test_a_run_without_terms_logs_what_it_logged(tmp_path):
    module, logged = module_with(tmp_path, PixelPrompting(BORDER)), Logged()
    small_trainer(logged, max_steps=1).fit(module, loader_of(one_step([random_batch()])))
    assert set(logged.steps[0]) == {"train/loss"}
