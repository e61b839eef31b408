"""Every proven architecture: the library's logits and `generate`, and its own gradients, on every path of ours."""

from pathlib import Path

import pytest
import torch

from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.language_model import check_language_folder, load_language_model
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.proven_forms import PROVEN_FORMS
from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.prompts.past_rows import OVER_PAST_ROWS, library_name
from lightning_m2pt.testing.random_backbone import random_batch
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.self_test import refuse_unless_like_library
from tests.prompts.test_shared_prefill import both_batches, largest_difference
from tests.support.models.decoders import FAMILIES, of_family
from tests.support.towers.float64_islands import float64_islands

FAST = ("mistral's window", "qwen3", "granite", "gemma2", "gemma3", "olmo2", "phi3's longrope")
"""The families that differ most; all others are tested with the slow tests."""
of_every_family = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in FAMILIES]
)


def attached(backbone: OpenClipLlama, path: str) -> M2PT:
    method = M2PT(3, 4, init="normal", init_std=0.5, path=path)
    method.build(backbone, torch.Generator().manual_seed(7))
    method.double().attach(backbone)
    return method


@of_every_family
def test_paths_have_the_loss_and_gradients_of_rows_in_the_sequence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    backbone, batch, found = of_family(tmp_path, name), random_batch(dtype=torch.float64), []
    with float64_islands(monkeypatch, backbone.language_model):
        for path, shortcuts in (("token", EVERY_ROW), ("prefix", EVERY_ROW), ("prefix", Shortcuts())):
            method = attached(backbone, path)
            losses = supervised_rows(backbone, batch, shortcuts).losses
            losses.sum().backward()
            found.append((losses.detach(), {each: tensor.grad for each, tensor in method.named_parameters()}))
            method.detach(backbone)
    for losses, gradients in found[1:]:
        torch.testing.assert_close(losses, found[0][0], rtol=1e-12, atol=1e-12)
        for each, gradient in gradients.items():
            scale = float(found[0][1][each].abs().max())
            torch.testing.assert_close(gradient, found[0][1][each], rtol=0, atol=1e-11 * max(scale, 1e-3))


@of_every_family
def test_logits_and_answers_are_the_librarys(tmp_path: Path, name: str) -> None:
    backbone, batch = of_family(tmp_path, name), random_batch(answer=1, dtype=torch.float64)
    model = backbone.language_model
    assert model.config._attn_implementation == OVER_PAST_ROWS["eager" if name.startswith("gemma2") else "sdpa"]
    with torch.no_grad():
        embeddings, _, spans = backbone.assemble(batch)
        ours = backbone.logits(backbone(batch).hidden_states)
    answers = [answer.token_ids for answer in greedy_answers(backbone, batch, 6, end_token_id=-1)]
    model.set_attn_implementation(library_name(model.config._attn_implementation))
    with torch.no_grad():
        own = model(inputs_embeds=embeddings, use_cache=False).logits
        torch.testing.assert_close(ours, own, rtol=1e-6, atol=1e-6)
        for sample, answer in enumerate(answers):
            rows = embeddings[sample : sample + 1, : int((spans[sample] != Span.PADDING).sum())]
            generated = model.generate(inputs_embeds=rows, max_new_tokens=6, do_sample=False, eos_token_id=None)
            assert answer == generated[0].tolist()


@of_every_family
def test_shared_prefixes_and_the_self_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    backbone = of_family(tmp_path, name)
    attached(backbone, "auto")
    with float64_islands(monkeypatch, backbone.language_model):
        assert backbone.shares_prefix()
        assert largest_difference(backbone, *both_batches(before=4, common=2)) < 1e-10
    for use in ("training", "answering"):
        refuse_unless_like_library(backbone, use, Shortcuts())


@of_every_family
def test_a_folder_that_the_library_wrote_is_read(tmp_path: Path, name: str) -> None:
    model, folder = of_family(tmp_path, name).language_model.float(), tmp_path / "language"
    model.save_pretrained(folder)
    check_language_folder(folder)
    read, tokens = load_language_model(folder, torch.float32), torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(read(tokens).logits, model(tokens).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_no_row_sees_placeholders_of_prompts_that_begin_later(tmp_path: Path, name: str) -> None:
    backbone = of_family(tmp_path, name)
    method = M2PT(3, 4, init="normal", init_std=0.5, textual_layers=[1, 2])
    method.build(backbone, torch.Generator().manual_seed(7))
    method.double().attach(backbone)
    for use in ("training", "answering"):
        refuse_unless_like_library(backbone, use, Shortcuts())


def test_every_proven_form_is_tested() -> None:
    assert {kind for kind, _, _ in FAMILIES.values()} == set(PROVEN_FORMS)


def test_sequences_end_where_longrope_rotates_otherwise(tmp_path: Path) -> None:
    backbone = of_family(tmp_path, "phi3's longrope")
    assert backbone.shape.maximum_positions == 100
    with pytest.raises(BadInputError, match="at most 100: its longrope rotates otherwise"):
        backbone.refuse_beyond_positions(101)
    rotation, states = backbone.decoder().rotary_emb, torch.zeros(1)
    within, beyond = (rotation(states, torch.arange(rows)[None])[0][:, :100] for rows in (100, 101))
    first = rotation(states, torch.arange(7)[None])[0]
    assert torch.equal(within[:, :7], first)
    assert float((beyond - within).abs().max()) > 0.1
    assert of_family(tmp_path, "dynamic").shape.maximum_positions == 128
