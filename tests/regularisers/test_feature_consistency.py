"""Feature consistency: its value against rows computed apart, its gradient at zeros, every split of a step."""

import os
import weakref
from dataclasses import replace

import pytest
import torch

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.memory_estimate import MicroBatchSize
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.module_memory import estimate_of
from lightning_m2pt.tuning.optimizer import AdamW
from lightning_m2pt.tuning.regularisers.feature_consistency import FeatureConsistency
from lightning_m2pt.tuning.regularisers.step_terms import measured
from tests.support.ranks import on_ranks
from tests.support.regularised.steps import BORDER, DELTA, Logged, parts_of, several_pictures, with_counts
from tests.support.small_training import Gradients, loader_of, module_with, one_step, small_trainer


def prompted(folder, method, *terms: FeatureConsistency, scale: float = 0.3, **settings) -> TuningModule:
    """A module whose pixel prompt is no longer zero."""
    module = module_with(folder, method, regularisers=terms, **settings)
    prompt = module.backbone.attachment.pixel_prompt
    with torch.no_grad():
        prompt.delta.add_(scale * torch.randn(prompt.delta.shape, generator=torch.Generator().manual_seed(5)))
    module.check()
    return module


def distances(module: TuningModule, batch: Batch, compose: str, *, relative: bool) -> list[float]:
    """Of each picture, from two passes with nothing shared with the code under test but the backbone."""
    backbone, attached = module.backbone, module.backbone.attachment
    with torch.no_grad():
        shown = backbone.connected_rows(batch.pixel_values)
        pixels = batch.pixel_values
        if compose == "shrink":
            prompt = attached.pixel_prompt
            zeros = PixelPrompting(BORDER, compose="shrink")
            zeros.build(backbone, torch.Generator())
            pixels = zeros.pixel_prompt(pixels)
            assert not zeros.pixel_prompt.delta.any()
            assert prompt.delta.any()
        backbone.attachment = replace(attached, pixel_prompt=None)
        clean = backbone.connected_rows(pixels)
        backbone.attachment = attached
    found = []
    for with_prompt, without in zip(shown.rows.split(shown.counts), clean.rows.split(clean.counts), strict=True):
        patches = clean.spans[: len(without)] == Span.PATCH
        norms = (with_prompt[patches] - without[patches]).square().sum(dim=1).sqrt()
        scale = without[patches].square().sum(dim=1).sqrt().mean() if relative else 1.0
        found.append(float(norms.mean() / scale))
    return found


@pytest.mark.parametrize("compose", ["overlay", "shrink"])
@pytest.mark.parametrize("norm", ["published", "relative"])
def test_the_value_is_the_mean_distance_of_patch_rows(tmp_path, compose, norm):
    term = FeatureConsistency(0.1, norm=norm)
    module = prompted(tmp_path, PixelPrompting(BORDER, compose=compose), term)
    [batch] = with_counts([random_batch()])
    [total] = measured(module.backbone, batch, module.shortcuts, [term]).sums
    expected = distances(module, batch, compose, relative=norm == "relative")
    assert len(set(expected)) == 3
    assert float(total.detach()) == pytest.approx(sum(expected), rel=1e-5)


def test_rows_of_other_prompts_are_left_out_and_the_rest_of_the_method_is_in_both_passes(tmp_path):
    term = FeatureConsistency(0.1)
    method = Combined([M2PT(2, 2, init="normal", init_std=0.5), PixelPrompting(BORDER)])
    module = prompted(tmp_path, method, term)
    [batch] = with_counts([random_batch()])
    rows = module.backbone.connected_rows(batch.pixel_values)
    assert {Span.VISUAL_PROMPT, Span.CLS, Span.PATCH} <= set(rows.spans.tolist())
    [total] = measured(module.backbone, batch, module.shortcuts, [term]).sums
    expected = sum(distances(module, batch, "overlay", relative=False))
    assert float(total.detach()) == pytest.approx(expected, rel=1e-5)


def test_layers_that_recompute_find_the_prompts_of_the_loss_in_their_hooks(tmp_path):
    """Visual prompts as rows of every layer: the last pass before the backward pass has to be the loss's."""
    found = []
    for recomputes in (False, True):
        method = Combined([M2PT(2, 2, init="normal", init_std=0.5, path="token"), PixelPrompting(BORDER, init_std=0.2)])
        module = module_with(tmp_path, method, regularisers=[FeatureConsistency(0.5)])
        backbone = module.backbone
        backbone.recompute_activations(recomputes)
        backbone.vision_tower.set_grad_checkpointing(recomputes)
        backbone.train()
        method.train()
        [batch] = with_counts([random_batch()])
        result = measured(backbone, batch, module.shortcuts, list(module.regularisers))
        (result.rows.losses.sum() + result.sums[0]).backward()
        found.append(
            {name: each.grad.clone() for name, each in method.named_tensors().items() if each.grad is not None}
        )
    assert found[0].keys() == found[1].keys()
    assert any("visual" in name for name in found[0])
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], rtol=1e-4, atol=1e-6), name


def test_every_picture_counts_alike_whatever_sample_shows_it(tmp_path):
    term = FeatureConsistency(0.1)
    module = prompted(tmp_path, PixelPrompting(BORDER), term)
    [batch] = with_counts([several_pictures()])
    assert batch.picture_counts == [2, 1, 0]
    [total] = measured(module.backbone, batch, module.shortcuts, [term]).sums
    assert float(total.detach()) == pytest.approx(sum(distances(module, batch, "overlay", relative=False)), rel=1e-5)


@pytest.mark.parametrize("norm", ["published", "relative"])
@pytest.mark.parametrize("compose", ["overlay", "shrink"])
def test_of_a_prompt_of_zeros_it_is_zero_and_so_is_its_gradient(tmp_path, compose, norm):
    backbone = random_backbone(tmp_path, torch.float64)
    method = PixelPrompting(BORDER, compose=compose)
    method.build(backbone, torch.Generator())
    method.attach(backbone)
    [batch] = with_counts([random_batch(dtype=torch.float64)])
    term = FeatureConsistency(0.1, norm=norm)
    [total] = measured(backbone, batch, TuningModule(backbone, method).shortcuts, [term]).sums
    total.backward()
    assert float(total.detach()) == 0.0
    assert torch.equal(method.pixel_prompt.delta.grad, torch.zeros_like(method.pixel_prompt.delta))


def test_original_is_the_picture_without_a_prompt(tmp_path):
    """On top of a picture a prompt of zeros is none, unless pixels are rounded to levels, which the original is not."""
    values = {}
    for reference in ("padded", "original"):
        term = FeatureConsistency(0.1, reference=reference)
        for clip in ("none", "eight_bits"):
            module = prompted(tmp_path, PixelPrompting(BORDER, clip=clip), term)
            [batch] = with_counts([random_batch()])
            values[reference, clip] = float(measured(module.backbone, batch, module.shortcuts, [term]).sums[0].detach())
    assert values["padded", "none"] == values["original", "none"]
    assert values["padded", "eight_bits"] != values["original", "eight_bits"]


def test_dropout_drops_the_same_in_both_passes_and_draws_nothing_more(tmp_path):
    term = FeatureConsistency(0.1)
    method = Combined([Lora(2, dropout=0.5, vision=True, interaction=False), PixelPrompting(BORDER)])
    module = module_with(tmp_path, method, regularisers=[term])
    with torch.no_grad():
        for name, each in method.named_tensors().items():
            if "pixel" not in name:
                each.add_(0.3 * torch.randn(each.shape, generator=torch.Generator().manual_seed(2)))
    method.train()
    [batch] = with_counts([random_batch()])
    torch.manual_seed(3)
    [total] = measured(module.backbone, batch, module.shortcuts, [term]).sums
    after = torch.get_rng_state()
    torch.manual_seed(3)
    supervised_rows(module.backbone, batch, module.shortcuts)
    assert float(total.detach()) == 0.0
    assert torch.equal(after, torch.get_rng_state())


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


def test_the_backbone_is_left_as_it_was(tmp_path):
    term = FeatureConsistency(0.7)
    module = prompted(tmp_path, PixelPrompting(BORDER), term)
    attached, [batch] = module.backbone.attachment, with_counts([random_batch()])
    measured(module.backbone, batch, module.shortcuts, [term])
    assert module.backbone.attachment is attached
    assert "connected_rows" not in vars(module.backbone)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_are_above_zero(weight):
    with pytest.raises(BadInputError, match="is no weight of feature_consistency"):
        FeatureConsistency(weight)


@pytest.mark.parametrize(
    ("method", "terms", "expected"),
    [
        (M2PT(2, 1), [FeatureConsistency()], "m2pt trains none"),
        (
            PixelPrompting(BORDER, compose="shrink"),
            [FeatureConsistency(reference="original")],
            "a shrunk picture are not those of the original",
        ),
        (PixelPrompting(BORDER), [FeatureConsistency(), FeatureConsistency(0.1)], "is there twice"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(tmp_path, method, terms, expected):
    module = TuningModule(random_backbone(tmp_path), method, regularisers=terms)
    with pytest.raises(BadInputError, match=expected):
        module.check()


def test_batches_that_do_not_count_their_pictures_are_refused(tmp_path):
    term = FeatureConsistency()
    module = prompted(tmp_path, PixelPrompting(BORDER), term)
    with pytest.raises(BadInputError, match="how many pictures"):
        small_trainer(max_steps=1).fit(module, loader_of(one_step([random_batch()])))


def test_nothing_else_is_attached_in_the_pass_without_the_prompt(tmp_path):
    """What the method puts in beside the pixel prompt stays, object by object."""
    term = FeatureConsistency()
    module = prompted(tmp_path, PixelPrompting(BORDER), term)
    seen: list[Attachment] = []
    connected = module.backbone.connected_rows

    def watching(pixels, sizes=None):
        seen.append(module.backbone.attachment)
        return connected(pixels, sizes)

    module.backbone.connected_rows = watching
    [batch] = with_counts([random_batch()])
    term.before(module.backbone, batch)
    del module.backbone.connected_rows
    assert replace(seen[0], pixel_prompt=module.backbone.attachment.pixel_prompt) == module.backbone.attachment
    assert not seen[0].pixel_prompt.delta.any()


class Saved:
    """A tensor that autograd keeps."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def kept_bytes(module: TuningModule, batch: Batch, terms: list[FeatureConsistency]) -> int:
    """What autograd keeps for the backward pass, without the model's tensors."""
    own = {each.untyped_storage().data_ptr() for each in module.parameters()}
    alive: weakref.WeakSet[Saved] = weakref.WeakSet()  # a graph that is dropped drops what it has saved

    def save(tensor: torch.Tensor) -> Saved:
        saved = Saved(tensor.detach())  # an output that its own node saves would hold itself for ever
        alive.add(saved)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(save, lambda saved: saved.tensor):
        found = measured(module.backbone, batch, module.shortcuts, terms)
    assert len(found.sums) == len(terms)
    storages = {each.tensor.untyped_storage().data_ptr(): each.tensor.untyped_storage() for each in alive}
    return sum(storage.nbytes() for address, storage in storages.items() if address not in own)


def test_what_it_keeps_is_in_the_estimate(tmp_path):
    """The pass without the prompt leaves its rows alone: the rest of it is dropped before the loss is computed."""
    term = FeatureConsistency()
    module, [batch] = prompted(tmp_path, PixelPrompting(BORDER), term), with_counts([random_batch(4)])
    more = kept_bytes(module, batch, [term]) - kept_bytes(module, batch, [])
    told = term.kept_bytes(module.backbone.shape, 4, 4 * module.backbone.shape.patches)
    assert 0 < more <= told
    size = MicroBatchSize(4, 8, 8)
    counted = [TuningModule(module.backbone, module.method, regularisers=terms) for terms in ([], [term])]
    without, with_term = (estimate_of(each, size) for each in counted)
    assert with_term.activations - without.activations == told
    assert with_term.recomputed_activations - without.recomputed_activations == told
