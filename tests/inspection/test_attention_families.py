"""Attention maps of every family of decoders and towers: what the library's ``output_attentions`` hands out."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch, Span
from lightning_m2pt.inspection.attention import capture_attention
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.testing.passes import batch_for
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch
from tests.prompts.test_parity import overwritten
from tests.support.models.decoders import FAMILIES, UNLISTED, of_family, unlisted
from tests.support.towers.stored_pairs import TOWERS, store_pair, stored_pair

FAST = ("mistral's window", "gemma2's caps", "gemma3", "olmo2", "phi3", "stablelm")
NAMES = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
    for name in (*FAMILIES, *UNLISTED)
]  # fmt: skip
TEXTUAL = 4


def attached(backbone: Backbone, **arguments: object) -> M2PT:
    method = M2PT(3, TEXTUAL, init="normal", init_std=0.5, **arguments)
    method.build(backbone, torch.Generator().manual_seed(7))
    method.double().attach(backbone)
    return method


def eager_attention(backbone: OpenClipLlama, method: M2PT, batch: Batch) -> list[Tensor]:
    """Returns (B, H, R, R) of every layer: the library's own model, rows overwritten by hooks of these tests."""
    model = backbone.language_model
    embeddings = backbone.assemble(batch)[0]
    rows = torch.cat([embeddings.new_zeros(len(batch), TEXTUAL, embeddings.shape[-1]), embeddings], dim=1)
    prompts = [method.textual_prompts.rows[str(layer)] for layer in range(len(model.model.layers))]
    chosen = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with overwritten(list(model.model.layers), prompts, prepend_at_first=False):
        found = model(inputs_embeds=rows, use_cache=False, output_attentions=True).attentions
    model.set_attn_implementation(chosen)
    return list(found)


@pytest.mark.parametrize("name", NAMES)
def test_maps_of_every_decoder_are_the_librarys(tmp_path: Path, name: str) -> None:
    if name in FAMILIES:
        backbone = of_family(tmp_path, name)
    else:
        backbone = random_backbone(tmp_path, torch.float64, language=unlisted(name))
    batch = random_batch(dtype=torch.float64)
    method = attached(backbone)
    with torch.no_grad():
        expected = eager_attention(backbone, method, batch)
    for sample, captured in enumerate(capture_attention(backbone, batch)):
        assert len(captured.language) == len(expected)
        for layer, wanted in zip(captured.language, expected, strict=True):
            size = layer.probabilities.shape[-1]
            own = wanted[sample, :, :size, :size].to(layer.probabilities.dtype)
            torch.testing.assert_close(layer.probabilities, own, rtol=0, atol=1e-6)


def test_windows_hide_columns_and_later_prompts_have_no_placeholders(tmp_path: Path) -> None:
    backbone, batch = of_family(tmp_path, "gemma3"), random_batch(dtype=torch.float64)
    attached(backbone, textual_layers=[1, 2])
    first, second, third = capture_attention(backbone, batch)[0].language
    assert first.probabilities.shape[-1] == second.probabilities.shape[-1] - TEXTUAL
    for windowed in (first, third):
        assert not windowed.probabilities.tril(-6).any()
    assert second.probabilities.tril(-6).any()


def test_windows_hide_columns_behind_learned_keys(tmp_path: Path) -> None:
    backbone, batch = of_family(tmp_path, "gemma3"), random_batch(dtype=torch.float64)
    method = PrefixTuning(2)
    method.build(backbone, torch.Generator().manual_seed(7))
    method.double().attach(backbone)
    for layer in capture_attention(backbone, batch)[0].language:
        rows, columns = layer.probabilities.shape[1:]
        assert columns == rows + 2
        assert bool(layer.probabilities.tril(2 - 6).any()) == (layer.layer == 1)


@pytest.mark.parametrize(
    "tower", ["clip", *(pytest.param(each, marks=pytest.mark.slow) for each in TOWERS if each != "clip")]
)
def test_maps_of_every_tower(tmp_path: Path, tower: str) -> None:
    store_pair(tmp_path, tower)
    backbone = stored_pair(tmp_path, "float64")
    backbone.load()
    batch = batch_for(backbone)
    in_front = backbone.shape.vision_rows_in_front
    found = [sample.vision[0] for sample in capture_attention(backbone, batch)]
    if not tower.startswith(("timm", "open_clip")):
        from transformers import AutoModel

        model = (
            AutoModel.from_pretrained(tmp_path / "tower", attn_implementation="eager", trust_remote_code=False)
            .eval()
            .double()
        )
        model = getattr(model, "vision_model", model)
        expected = model(batch.pixel_values, output_attentions=True).attentions
        for sample, layers in enumerate(found):
            for layer, wanted in zip(layers, expected, strict=False):
                own = wanted[sample].to(layer.probabilities.dtype)
                torch.testing.assert_close(layer.probabilities, own, rtol=0, atol=1e-6)
    attached(backbone, visual_rows_to_text="none")
    prompted = [sample.vision[0] for sample in capture_attention(backbone, batch)]
    for without, layers in zip(found, prompted, strict=True):
        assert len(without) == len(layers) == len(backbone.tower_blocks())
        for plain, layer in zip(without, layers, strict=True):
            rows = in_front + backbone.shape.patches
            assert plain.probabilities.shape[1:] == (rows, rows)
            assert layer.probabilities.shape[1:] == (3 + rows, 3 + rows)
            assert layer.spans.tolist()[: 3 + in_front] == [Span.VISUAL_PROMPT] * 3 + [Span.CLS] * in_front
            torch.testing.assert_close(layer.probabilities.sum(-1), torch.ones_like(layer.probabilities[..., 0]))
        # The first layer's other rows ask as before: prompts take a share of every row, and leave the rest in order.
        rest = layers[0].probabilities[:, 3:, 3:]
        rest = rest / rest.sum(dim=-1, keepdim=True)
        torch.testing.assert_close(rest, without[0].probabilities, rtol=0, atol=1e-6)


def test_attention_of_an_unknown_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, batch = of_family(tmp_path, "llama"), random_batch(dtype=torch.float64)
    monkeypatch.delattr(sys.modules[type(backbone.language_model).__module__], "eager_attention_forward")
    with pytest.raises(BadInputError, match="the attention of LlamaAttention cannot be read"):
        capture_attention(backbone, batch)
    assert not any(each._forward_hooks for each in backbone.modules())
