"""Feature consistency: its value against rows computed apart, its gradient at zeros, every split of a step."""

import weakref
from dataclasses import replace

import pytest
import torch

from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch, Span
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
from lightning_m2pt.tuning.regularisers.feature_consistency import FeatureConsistency
from lightning_m2pt.tuning.regularisers.step_terms import measured
from tests.support.regularised.steps import BORDER, distances, prompted, several_pictures, with_counts
from tests.support.small_training import loader_of, module_with, one_step, small_trainer


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
    """Visual prompts as rows of every layer, with dropout: the last pass before the backward pass is the loss's."""
    found = []
    for recomputes in (False, True):
        prompts = M2PT(2, 2, init="normal", init_std=0.5, path="token", dropout=0.5)
        method = Combined([prompts, PixelPrompting(BORDER, init_std=0.2)])
        module = module_with(tmp_path, method, regularisers=[FeatureConsistency(0.5)])
        backbone = module.backbone
        backbone.recompute_activations(recomputes)
        backbone.vision_tower.set_grad_checkpointing(recomputes)
        backbone.train()
        method.train()
        [batch] = with_counts([random_batch()])
        torch.manual_seed(3)
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


@pytest.mark.parametrize("shortcuts", [EVERY_ROW, Shortcuts()], ids=["every row", "shortcuts"])
@pytest.mark.parametrize("path", ["token", "prefix"])
def test_every_way_of_the_loss_gives_one_value_and_gradient(tmp_path, path, shortcuts):
    """The rows that are noted are those of the loss, whatever of it is left out."""
    term = FeatureConsistency(0.5)
    method = Combined([M2PT(2, 2, init="normal", init_std=0.5, path=path), PixelPrompting(BORDER, init_std=0.2)])
    module = module_with(tmp_path, method, regularisers=[term])
    [batch] = with_counts([random_batch()])
    found = measured(module.backbone, batch, shortcuts, [term])
    expected = sum(distances(module, batch, "overlay", relative=False))
    assert float(found.sums[0].detach()) == pytest.approx(expected, rel=1e-5)
    found.sums[0].backward()
    prompt = module.backbone.attachment.pixel_prompt
    apart = rows_apart(module.backbone, batch)
    [gradient] = torch.autograd.grad(apart, [prompt.delta])
    assert torch.allclose(prompt.delta.grad, gradient, rtol=1e-3, atol=1e-6)


def rows_apart(backbone, batch: Batch) -> torch.Tensor:
    """The sum over samples of the mean distance of patch rows, times their pictures, read off assembled sequences."""
    attached = backbone.attachment
    shown = backbone.assembled(batch)
    backbone.attachment = replace(attached, pixel_prompt=None)
    with torch.no_grad():
        clean = backbone.assembled(batch)
    backbone.attachment = attached
    total = torch.zeros((), dtype=shown.embeddings.dtype)
    for sample, number in enumerate(batch.picture_counts):
        patches = shown.spans[sample] == Span.PATCH
        if number:
            change = shown.embeddings[sample][patches] - clean.embeddings[sample][patches]
            total = total + number * change.square().sum(dim=-1).sqrt().mean()
    return total


@pytest.mark.slow
@pytest.mark.parametrize("family", ["onevision", "next", "idefics3", "smolvlm"])
def test_pictures_in_tiles_go_by_their_samples(tmp_path, family):
    """Samples of one, two, no and one picture, each of several tiles and runs of rows, in the library's layouts."""
    from tests.backbones.test_tiles import OF_SAMPLES, both

    made, term = both(tmp_path, family, answer=2), FeatureConsistency()
    method = PixelPrompting(BORDER, init_std=0.2)
    method.build(made.backbone, torch.Generator().manual_seed(1))
    method.attach(made.backbone)
    counts = [len(pictures) for pictures in OF_SAMPLES]
    batch = replace(made.batch, picture_counts=counts, step_pictures=sum(counts))
    [total] = measured(made.backbone, batch, EVERY_ROW, [term]).sums
    assert float(total.detach()) == pytest.approx(float(rows_apart(made.backbone, batch).detach()), rel=1e-6)
    with torch.no_grad():
        method.pixel_prompt.delta.zero_()
    assert float(measured(made.backbone, batch, EVERY_ROW, [term]).sums[0].detach()) == 0.0


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
