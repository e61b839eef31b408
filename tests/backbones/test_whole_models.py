"""Whole models of transformers: the library's own logits and `generate`, prompts both ways, on tiny models on disk."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.quantised import QuantisedLinear
from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.testing.backbone_contract import backbone_contract
from lightning_m2pt.testing.random_backbone import random_batch
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.self_test import refuse_unless_like_library
from tests.support.towers.float64_islands import float64_islands
from tests.support.whole_models import idefics3_config, llava_config, next_config, onevision_config, write_whole_model

WINDOW = 6
"""Shorter than the rows of a picture."""
CONFIGS: dict[str, Callable[[], dict[str, Any]]] = {
    "llava": llava_config,
    "llava, siglip and qwen2": lambda: llava_config("siglip_vision_model", "qwen2"),
    "llava, mistral's window": lambda: llava_config(text="mistral", sliding_window=WINDOW),
}
IMAGE_TOKEN = 59


def written(folder: Path, name: str) -> tuple[VisionLanguageModel, Any]:
    """Returns our backbone and the library's own model, read from one folder, both in float64."""
    from transformers import AutoModelForImageTextToText

    write_whole_model(folder, CONFIGS[name]())
    backbone = VisionLanguageModel(str(folder), dtype="float64")
    backbone.load()
    library = AutoModelForImageTextToText.from_pretrained(str(folder), dtype=torch.float64, trust_remote_code=False)
    return backbone, library.eval()


def ids_of_library(batch: Batch, rows: int) -> tuple[Tensor, Tensor]:
    """Returns token ids with the image token once for each of a picture's rows, and the mask of what is no padding."""
    ids = [
        torch.cat([torch.full((rows,), IMAGE_TOKEN) if token == IMAGE_TOKEN_ID else token[None] for token in sample])
        for sample in batch.input_ids
    ]
    real = torch.nn.functional.pad(batch.spans != Span.PADDING, (rows - 1, 0), value=True)
    return torch.stack(ids), real.long()


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_answers_are_the_librarys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    backbone, library = written(tmp_path, name)
    batch = random_batch(answer=1, dtype=torch.float64)
    ids, mask = ids_of_library(batch, backbone.shape.patches)
    with torch.no_grad(), float64_islands(monkeypatch, library):
        expected = library(input_ids=ids, pixel_values=batch.pixel_values, attention_mask=mask).logits
        found = backbone.logits(backbone(batch).hidden_states)
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=1e-12, atol=1e-12)
    answers = [answer.token_ids for answer in greedy_answers(backbone, batch, 6, end_token_id=-1)]
    for sample, answer in enumerate(answers):
        length = int(mask[sample].sum())
        generated = library.generate(
            input_ids=ids[sample : sample + 1, :length],
            pixel_values=batch.pixel_values[sample : sample + 1],
            attention_mask=mask[sample : sample + 1, :length],
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=None,
            suppress_tokens=[IMAGE_TOKEN],
        )
        assert answer == generated[0, length:].tolist()


def loss_and_gradients(backbone: VisionLanguageModel, path: str, shortcuts: Shortcuts) -> dict[str, Tensor]:
    rows = "none" if backbone.shape.raw_rows_refused else "official"
    method = M2PT(3, 4, init="normal", init_std=0.5, path=path, visual_rows_to_text=rows)
    method.check(backbone.shape)
    method.build(backbone, torch.Generator().manual_seed(7))
    method.double().attach(backbone)
    losses = supervised_rows(backbone, random_batch(dtype=torch.float64), shortcuts).losses
    losses.sum().backward()
    found = {"losses": losses.detach(), **{each: tensor.grad for each, tensor in method.named_parameters()}}
    method.detach(backbone)
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_both_paths_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    backbone, library = written(tmp_path, name)
    with float64_islands(monkeypatch, library):
        reference = loss_and_gradients(backbone, "token", EVERY_ROW)
        for path, shortcuts in (("prefix", EVERY_ROW), ("prefix", Shortcuts())):
            found = loss_and_gradients(backbone, path, shortcuts)
            for each, numbers in reference.items():
                scale = max(float(numbers.abs().max()), 1e-3)
                torch.testing.assert_close(found[each], numbers, rtol=0, atol=1e-11 * scale, msg=each)


OTHERS = {
    "llava, siglip and qwen2": CONFIGS["llava, siglip and qwen2"],
    "onevision": onevision_config,
    "next": next_config,
    "idefics3": idefics3_config,
    "smolvlm": lambda: idefics3_config("smolvlm", "SmolVLM"),
}


@pytest.mark.parametrize("name", ["llava", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_it_keeps_the_contract(tmp_path: Path, name: str) -> None:
    write_whole_model(tmp_path, {**CONFIGS, **OTHERS}[name]())
    backbone_contract(lambda dtype: VisionLanguageModel(str(tmp_path), dtype=dtype))


def test_the_self_test_sees_a_wrong_tower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, _ = written(tmp_path, "llava")
    refuse_unless_like_library(backbone, "training", Shortcuts())
    visual_rows = backbone.visual_rows
    monkeypatch.setattr(backbone, "visual_rows", lambda pixels: visual_rows(pixels.flip(-1)))
    with pytest.raises(BadInputError, match="the vision tower differs"):
        refuse_unless_like_library(backbone, "training", Shortcuts())


def test_no_answer_holds_a_token_that_stands_for_pictures(tmp_path: Path) -> None:
    backbone, _ = written(tmp_path, "llava")
    with torch.no_grad():
        backbone.pretrained_lm_head().weight[IMAGE_TOKEN].copy_(100 * backbone.pretrained_lm_head().weight[4])
        backbone.pretrained_lm_head().weight[5].copy_(-100 * backbone.pretrained_lm_head().weight[4])
    answers = greedy_answers(backbone, random_batch(answer=1, dtype=torch.float64), 6, end_token_id=-1)
    assert all(IMAGE_TOKEN not in answer.token_ids for answer in answers)
    backbone.never_answered = ()
    answers = greedy_answers(backbone, random_batch(answer=1, dtype=torch.float64), 6, end_token_id=-1)
    assert any(IMAGE_TOKEN in answer.token_ids for answer in answers)


def test_packed_layers_are_the_model_with_their_dequantised_weights(tmp_path: Path) -> None:
    write_whole_model(tmp_path, llava_config())
    packed = VisionLanguageModel(str(tmp_path), dtype="float64", quantization="int8")
    plain = VisionLanguageModel(str(tmp_path), dtype="float64")
    assert packed.fingerprint() != plain.fingerprint()
    packed.load()
    plain.load()
    assert packed.base_parameters() == plain.base_parameters()
    layers = {name: module for name, module in packed.named_modules() if isinstance(module, QuantisedLinear)}
    assert len(layers) == 7 * packed.shape.text_layers
    for name, layer in layers.items():
        plain.get_submodule(name).weight.data.copy_(layer.dequantised(torch.float64))
    batch = random_batch(dtype=torch.float64)
    found, expected = (each.logits(each(batch).hidden_states) for each in (packed, plain))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("error:.*deprecated:FutureWarning")
@pytest.mark.parametrize("path", ["token", "prefix"])
def test_recomputed_activations_give_the_same_gradients(tmp_path: Path, path: str) -> None:
    write_whole_model(tmp_path, llava_config())
    found, calls = [], []
    for recomputes in (False, True):
        backbone = VisionLanguageModel(str(tmp_path), dtype="float64", activation_checkpointing=recomputes)
        backbone.load()
        backbone.train()
        counted: Counter[str] = Counter()
        for name, block in (("tower", backbone.tower_blocks()[1]), ("decoder", backbone.decoder().layers[1])):
            block.mlp.register_forward_pre_hook(lambda *_, name=name, counted=counted: counted.update([name]))
        found.append(loss_and_gradients(backbone, path, Shortcuts()))
        calls.append(dict(counted))
    assert calls == [{"tower": 1, "decoder": 1}, {"tower": 2, "decoder": 2}]
    for each, numbers in found[0].items():
        torch.testing.assert_close(found[1][each], numbers, rtol=1e-10, atol=1e-12, msg=each)


def test_nothing_attached_or_nothing_in_it_is_the_untouched_model(tmp_path: Path) -> None:
    backbone, batch = written(tmp_path, "llava")[0], random_batch(dtype=torch.float64)
    untouched = backbone.logits(backbone(batch).hidden_states)
    for method in (M2PT(0, 0, interaction=False), M2PT(3, 2, interaction=False)):
        method.build(backbone, torch.Generator())
        method.attach(backbone, frozenset(method.part_names()))
        assert torch.equal(backbone.logits(backbone(batch).hidden_states), untouched)
        method.detach(backbone)
        assert torch.equal(backbone.logits(backbone(batch).hidden_states), untouched)


@pytest.mark.parametrize("rows", ["official", "all", "none"])
@pytest.mark.parametrize("name", ["llava", "llava, siglip and qwen2"])
def test_rows_of_a_picture_are_known_without_it(tmp_path: Path, name: str, rows: Any) -> None:
    backbone, batch = written(tmp_path, name)[0], random_batch(dtype=torch.float64)
    assert backbone.rows_of_runs(batch.pixel_values) == backbone.connected_rows(batch.pixel_values).counts == [16] * 3
    method = M2PT(3, 0, visual_rows_to_text=rows)
    method.build(backbone, torch.Generator())
    method.attach(backbone)
    found = backbone.connected_rows(batch.pixel_values)
    assert backbone.rows_of_runs(batch.pixel_values) == found.counts
    has_cls = name == "llava"
    names = {
        "official": [Span.VISUAL_PROMPT] * 2 + [Span.CLS] * has_cls,
        "all": [Span.VISUAL_PROMPT] * 3,
        "none": [],
    }
    assert found.spans[: found.counts[0]].tolist() == names[rows] + [Span.PATCH] * 16


@pytest.mark.slow
def test_compiled_layers_compute_the_same(tmp_path: Path) -> None:
    backbone, _ = written(tmp_path, "llava")
    compiled = VisionLanguageModel(str(tmp_path), dtype="float64", compile_backend="aot_eager")
    compiled.load()
    found, expected = (loss_and_gradients(each, "prefix", Shortcuts()) for each in (compiled, backbone))
    for each, numbers in expected.items():
        torch.testing.assert_close(found[each], numbers, rtol=1e-10, atol=1e-12, msg=each)


def test_blocks_behind_the_features_are_not_computed(tmp_path: Path) -> None:
    write_whole_model(tmp_path, llava_config())
    backbone = VisionLanguageModel(str(tmp_path), dtype="float32")
    backbone.load()
    blocks, ran = list(backbone.language_model.model.vision_tower.encoder.layers), []
    for number, block in enumerate(blocks):
        block.mlp.register_forward_hook(lambda *_, number=number: ran.append(number))
    backbone.visual_rows(torch.zeros(1, 3, 16, 16))
    assert ran == [0, 1, 2]
    assert len(blocks) == 4


def test_the_first_pass_leaves_no_hook_in_the_tower(tmp_path: Path) -> None:
    """The library hooks blocks at its first pass, which recomputation would meet in some passes and not in others."""
    write_whole_model(tmp_path, llava_config())
    backbone = VisionLanguageModel(str(tmp_path), dtype="float32")
    backbone.load()
    before = [list(block._forward_hooks) for block in backbone.tower_blocks()]
    backbone.visual_rows(torch.zeros(1, 3, 16, 16))
    assert [list(block._forward_hooks) for block in backbone.tower_blocks()] == before
