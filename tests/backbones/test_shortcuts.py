"""Rows left out or run once: the same loss and the same gradients as the reference, for every method."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_m2pt.answering.decoding_steps import advance
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.layer_norm import Float32Norm
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.prompts.past_rows import takes_past_rows
from lightning_m2pt.prompts.prefix_decoder import shared_rows
from lightning_m2pt.testing.random_backbone import PATCHES, TEXT_LAYERS, random_backbone, random_batch
from lightning_m2pt.tuning.losses import SupervisedRows, supervised_rows
from tests.methods.test_every_method import METHODS, built
from tests.prompts.test_parity import float64_islands as float64_norms_and_angles


@contextmanager
def float64_islands(monkeypatch) -> Iterator[None]:
    """Nothing is computed in float32: not the library's norms and angles, and not the trained norms."""
    with float64_norms_and_angles(monkeypatch), monkeypatch.context() as patch:
        patch.setattr(Float32Norm, "forward", lambda self, states: self.norm(states))
        yield


EVERY_SHORTCUT = Shortcuts()
ALONE = [Shortcuts(True, False), Shortcuts(False, True), EVERY_SHORTCUT]
SYSTEM_TEXT = 3


def batch_with_system_text(dtype: torch.dtype = torch.float64, size: int = 3) -> Batch:
    """Samples that begin alike: one with two answers, the others with one and padding behind it."""
    batch = random_batch(size=size, text=14, answer=6, dtype=dtype)
    ids, spans = batch.input_ids.clone(), batch.spans.clone()
    ids[:, 1], ids[:, SYSTEM_TEXT] = ids[0, 4], IMAGE_TOKEN_ID
    ids[:, :SYSTEM_TEXT] = ids[:1, :SYSTEM_TEXT]
    spans[:, :SYSTEM_TEXT], spans[:, SYSTEM_TEXT] = int(Span.SYSTEM), int(Span.IMAGE)
    spans[0, 10:12] = int(Span.QUESTION)  # two answers
    spans[1:, 12:] = int(Span.PADDING)
    labels = torch.where(spans == Span.ANSWER, ids, IGNORED_LABEL)
    return replace(batch, input_ids=ids, spans=spans, labels=labels)


def loss_and_gradients(
    backbone: OpenClipLlama, method: Method, batch: Batch, shortcuts: Shortcuts
) -> tuple[SupervisedRows, dict[str, Tensor]]:
    named = [pair for tensors in method.parts().values() for pair in tensors]
    backbone.requires_grad_(False)
    for _, parameter in named:
        parameter.requires_grad_(True)
        parameter.grad = None
    rows = supervised_rows(backbone, batch, shortcuts)
    (rows.losses * torch.arange(1, len(rows.losses) + 1)).sum().backward()
    return rows, {name: parameter.grad.clone() for name, parameter in named}


def assert_same(
    one: tuple[SupervisedRows, dict[str, Tensor]], other: tuple[SupervisedRows, dict[str, Tensor]], tolerance: float
) -> None:
    torch.testing.assert_close(one[0].losses, other[0].losses, rtol=tolerance, atol=tolerance)
    for name in ("right", "sample", "turn"):
        assert torch.equal(getattr(one[0], name), getattr(other[0], name))
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        scale = float(gradient.abs().max())
        assert float((gradient - other[1][name]).abs().max()) <= tolerance * max(scale, 1e-3), name


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_the_same_loss_and_gradients(tmp_path: Path, monkeypatch, name: str) -> None:
    backbone, batch = random_backbone(tmp_path, torch.float64), batch_with_system_text()
    method = built(name, backbone).double()
    method.attach(backbone)
    with float64_islands(monkeypatch):
        expected = loss_and_gradients(backbone, method, batch, EVERY_ROW)
        for shortcuts in ALONE:
            assert_same(loss_and_gradients(backbone, method, batch, shortcuts), expected, 1e-12)


def m2pt_on(
    folder: Path, dtype: torch.dtype, path: str, shortcuts: Shortcuts, rows_to_text: str = "official"
) -> tuple[SupervisedRows, dict[str, Tensor]]:
    backbone = random_backbone(folder, dtype)
    method = M2PT(5, 4, visual_rows_to_text=rows_to_text, path=path)
    method.build(backbone, torch.Generator().manual_seed(3))
    method.to(dtype).attach(backbone)
    return loss_and_gradients(backbone, method, batch_with_system_text(dtype), shortcuts)


@pytest.mark.parametrize("rows_to_text", ["official", "all", "none"])
def test_all_shortcuts_equal_the_token_path(tmp_path: Path, monkeypatch, rows_to_text: str) -> None:
    with float64_islands(monkeypatch):
        expected = m2pt_on(tmp_path, torch.float64, "token", EVERY_ROW, rows_to_text)
        for path in ("token", "prefix"):
            assert_same(m2pt_on(tmp_path, torch.float64, path, EVERY_SHORTCUT, rows_to_text), expected, 1e-12)


def test_float32_with_the_untouched_library_classes(tmp_path: Path) -> None:
    backbone, batch = random_backbone(tmp_path), batch_with_system_text(torch.float32)
    method = built("m2pt", backbone)
    method.attach(backbone)
    expected = loss_and_gradients(backbone, method, batch, EVERY_ROW)
    assert_same(loss_and_gradients(backbone, method, batch, EVERY_SHORTCUT), expected, 1e-4)


RECOMPUTED = ["m2pt", "ptum prefix", "lora with tower", "adapter", "full", "lora and visual prompts"]


@pytest.mark.parametrize("name", RECOMPUTED)
@pytest.mark.parametrize("shortcuts", [EVERY_ROW, EVERY_SHORTCUT], ids=["every row", "shortcuts"])
def test_recomputed_activations_change_nothing(tmp_path: Path, monkeypatch, name: str, shortcuts: Shortcuts) -> None:
    results, times_run = [], []
    with float64_islands(monkeypatch):
        for recomputes in (False, True):
            backbone, batch = random_backbone(tmp_path, torch.float64), batch_with_system_text()
            backbone.activation_checkpointing = recomputes
            backbone.finish()
            backbone.train()
            method = built(name, backbone).double()
            method.attach(backbone)
            times_run.append(Counter())
            layer = backbone.language_model.model.layers[0].mlp.act_fn
            layer.register_forward_hook(lambda *_, counter=times_run[-1]: counter.update(["layer 0"]))
            results.append(loss_and_gradients(backbone, method, batch, shortcuts))
    assert times_run[1]["layer 0"] == 2 * times_run[0]["layer 0"]
    assert_same(results[1], results[0], 1e-12)


def test_the_rows_that_run_once_are_those_in_front_of_the_picture(tmp_path: Path) -> None:
    backbone, batch = random_backbone(tmp_path, torch.float64), batch_with_system_text()
    built("m2pt", backbone).double().attach(backbone)
    sizes: list[tuple[int, int]] = []
    blocks = backbone.language_model.model.layers
    handles = [
        block.mlp.register_forward_pre_hook(lambda _mlp, arguments: sizes.append(tuple(arguments[0].shape[:2])))
        for block in blocks
    ]
    supervised_rows(backbone, batch)
    for handle in handles:
        handle.remove()
    # Raw rows of the last visual prompt but the first follow the system text; then CLS, patches, and text as far as
    # the last row that predicts something: row 12 of 14.
    common, own = SYSTEM_TEXT + 4, 1 + PATCHES + 13 - SYSTEM_TEXT - 1
    supervised = max((batch.labels != IGNORED_LABEL).sum(dim=1))
    layers = TEXT_LAYERS - 1
    assert sizes == [(1, common)] * layers + [(3, own)] * layers + [(3, int(supervised))]


@pytest.mark.parametrize("name", ["projector", "lora", "full", "m2pt"])
def test_words_that_nothing_trained_reaches_are_not_run_backwards(tmp_path: Path, name: str) -> None:
    backbone, batch = random_backbone(tmp_path, torch.float64), batch_with_system_text()
    method = built(name, backbone).double()
    method.attach(backbone)
    backbone.requires_grad_(False)
    for _, parameter in [pair for tensors in method.parts().values() for pair in tensors]:
        parameter.requires_grad_(True)
    found: list[tuple[int, bool]] = []
    first, *_ = backbone.language_model.model.layers
    handle = first.mlp.register_forward_hook(lambda _mlp, _given, out: found.append((len(out), out.requires_grad)))
    supervised_rows(backbone, batch)
    handle.remove()
    assert found == [(1, name != "projector"), (3, True)]


def test_shared_rows_end_where_samples_differ() -> None:
    image = IMAGE_TOKEN_ID
    alike = torch.tensor([[1, 2, image, 5], [1, 2, image, 6]])
    assert shared_rows(alike, image, rows_behind=4) == 6
    other_text = torch.tensor([[1, 2, image, 5], [1, 3, image, 5]])
    assert shared_rows(other_text, image, rows_behind=4) == 1
    other_place = torch.tensor([[1, image, 5, 5], [1, 2, image, 5]])
    assert shared_rows(other_place, image, rows_behind=4) == 1
    assert shared_rows(torch.tensor([[1, 2], [1, 2]]), image, rows_behind=4) == 2


def test_dropout_inside_the_decoder_draws_for_every_sample(tmp_path: Path) -> None:
    """Low-rank layers with dropout see the system text once per sample, each with numbers of its own."""
    backbone, batch = random_backbone(tmp_path), batch_with_system_text(torch.float32)
    method = Lora(2, dropout=0.5)
    method.build(backbone, torch.Generator().manual_seed(0))
    method.attach(backbone)
    method.train()
    backbone.train()
    widths: list[int] = []
    handle = backbone.language_model.model.layers[0].register_forward_pre_hook(
        lambda _block, arguments: widths.append(len(arguments[0]))
    )
    supervised_rows(backbone, batch)
    method.eval()
    supervised_rows(backbone, batch)
    handle.remove()
    assert widths == [3, 1, 3]


def test_auto_folds_no_prompts_while_dropout_draws_for_every_sample(tmp_path: Path) -> None:
    """The token path draws for every sample's prompt rows; keys and values computed once would all be drawn alike."""
    backbone = random_backbone(tmp_path)
    for path, folds_in_training in (("auto", False), ("prefix", True)):
        method = Combined([M2PT(0, 4, interaction=False, path=path), Lora(2, dropout=0.5)])
        method.build(backbone, torch.Generator().manual_seed(0))
        method.attach(backbone)
        method.train()
        assert backbone.shares_prefix() == folds_in_training
        method.eval()
        assert backbone.shares_prefix()
        method.detach(backbone)


def test_recomputing_layers_drop_nothing(tmp_path: Path) -> None:
    """A configuration's attention dropout belongs to pretraining; frozen layers never apply it."""
    losses = []
    for recomputes in (False, True):
        backbone = random_backbone(tmp_path)
        for block in backbone.language_model.model.layers:
            block.self_attn.attention_dropout = 0.5
        backbone.activation_checkpointing = recomputes
        backbone.finish()
        backbone.train()
        losses.append(supervised_rows(backbone, batch_with_system_text(torch.float32)).losses)
    assert torch.equal(*losses)


@pytest.mark.parametrize("name", ["ptum prefix", "projector"])
def test_layers_that_recompute_keep_what_is_answered_from(tmp_path: Path, name: str) -> None:
    """The library's cache would be dropped by them."""
    backbone, batch = random_backbone(tmp_path), batch_with_system_text(torch.float32)
    backbone.activation_checkpointing = True
    backbone.finish()
    built(name, backbone).attach(backbone)
    tokens, found = torch.tensor([3, 4, 5]), []
    for training in (False, True):
        backbone.train(training)
        found.append(advance(backbone, backbone.prefill(batch), tokens).logits)
    assert torch.equal(*found)


def test_samples_of_several_pictures_share_the_rows_before_the_first(tmp_path: Path, monkeypatch) -> None:
    backbone, batch = random_backbone(tmp_path, torch.float64), batch_with_system_text()
    ids, spans = batch.input_ids.clone(), batch.spans.clone()
    ids[:, SYSTEM_TEXT + 2], spans[:, SYSTEM_TEXT + 2] = IMAGE_TOKEN_ID, int(Span.IMAGE)
    pictures = torch.cat([batch.pixel_values, batch.pixel_values.flip(0)])
    batch = replace(batch, input_ids=ids, spans=spans, pixel_values=pictures)
    method = built("m2pt", backbone).double()
    method.attach(backbone)
    with float64_islands(monkeypatch):
        expected = loss_and_gradients(backbone, method, batch, EVERY_ROW)
        assert_same(loss_and_gradients(backbone, method, batch, EVERY_SHORTCUT), expected, 1e-12)


def test_a_single_sample_has_nothing_to_share(tmp_path: Path, monkeypatch) -> None:
    backbone, batch = random_backbone(tmp_path, torch.float64), batch_with_system_text(size=1)
    method = built("m2pt", backbone).double()
    method.attach(backbone)
    with float64_islands(monkeypatch):
        expected = loss_and_gradients(backbone, method, batch, EVERY_ROW)
        assert_same(loss_and_gradients(backbone, method, batch, EVERY_SHORTCUT), expected, 1e-12)


def test_another_attention_function_takes_the_reference(tmp_path: Path, monkeypatch) -> None:
    """Eager attention would overlook prefixes: with it everything goes through the library's own forward."""
    backbone, batch = random_backbone(tmp_path, torch.float64), batch_with_system_text()
    method = built("m2pt", backbone).double()
    method.attach(backbone)
    with float64_islands(monkeypatch):
        expected = loss_and_gradients(backbone, method, batch, EVERY_SHORTCUT)
        backbone.language_model.set_attn_implementation("eager")
        assert not takes_past_rows(backbone.language_model.model)
        assert_same(
            loss_and_gradients(backbone, method, batch, EVERY_SHORTCUT), expected, 1e-6
        )  # its softmax is float32


@pytest.mark.parametrize("recomputes", [False, True], ids=["", "recomputing"])
@pytest.mark.parametrize("name", ["m2pt", "ptum prefix", "projector"])
def test_layers_compile_without_graph_breaks(tmp_path: Path, monkeypatch, name: str, recomputes: bool) -> None:
    """Every layer of tower and decoder is one graph, behind a prefix, with a mask and without; layers share them."""
    backbone, batch = random_backbone(tmp_path, torch.float64), batch_with_system_text()
    method = built(name, backbone).double()
    method.attach(backbone)
    with float64_islands(monkeypatch):
        expected = loss_and_gradients(backbone, method, batch, EVERY_SHORTCUT)
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        backbone.compile_backend, backbone.activation_checkpointing = "aot_eager", recomputes
        backbone.finish()
        backbone.train()
        assert_same(loss_and_gradients(backbone, method, batch, EVERY_SHORTCUT), expected, 1e-12)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs >= 4
    if name == "m2pt":
        assert graphs <= 7  # as with four times as many layers: no graph knows its layer's number
    assert not torch._dynamo.utils.counters["graph_break"]
