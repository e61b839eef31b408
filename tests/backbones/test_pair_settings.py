"""What can be set of a pair does what it says: compiled blocks, kept features, packed layers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.backbones.quantised import quantised_layers
from lightning_m2pt.backbones.shortcuts import Shortcuts
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.system import file_hashes
from lightning_m2pt.testing.passes import batch_for, check_like_library, logits_of
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.self_test import refuse_unless_like_library
from tests.support.quantised_backbone import needs
from tests.support.towers.stored_pairs import store_pair, stored_pair


def loaded(folder: Path, **arguments: Any) -> TowerAndDecoder:
    backbone = stored_pair(folder, **{"dtype": "float64", **arguments})
    backbone.load()
    backbone.requires_grad_(False)
    return backbone


def attached(backbone: TowerAndDecoder, **arguments: Any) -> M2PT:
    method = M2PT(**{"visual_length": 3, "textual_length": 2, "init": "normal", "init_std": 0.5, **arguments})
    method.build(backbone, torch.Generator().manual_seed(7))
    method.double().attach(backbone)
    return method


def loss_and_gradients(backbone: TowerAndDecoder, **arguments: Any) -> dict[str, Tensor]:
    method = attached(backbone, **arguments)
    losses = supervised_rows(backbone, batch_for(backbone)).losses
    losses.sum().backward()
    found = {name: each.grad.clone() for name, each in method.named_parameters() if each.grad is not None}
    method.detach(backbone)
    return {"losses": losses.detach(), **found}


@pytest.mark.slow
@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("tower", ["clip", "siglip", "dinov2", "timm", "open_clip"])
def test_compiled_blocks_compute_the_same(tmp_path: Path, tower: str, recomputes: bool) -> None:
    store_pair(tmp_path, tower)
    plain = loaded(tmp_path)
    compiled = loaded(tmp_path, compile_backend="aot_eager", activation_checkpointing=recomputes)
    compiled.train()
    for path in ("token", "auto"):
        found, expected = (loss_and_gradients(each, path=path) for each in (compiled, plain))
        for name, each in expected.items():
            scale = max(float(each.abs().max()), 1e-3)
            torch.testing.assert_close(found[name], each, rtol=0, atol=1e-5 * scale, msg=f"{path}: {name}")


@pytest.mark.parametrize("tower", ["siglip", "timm with registers"])
def test_features_are_kept_and_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tower: str) -> None:
    store_pair(tmp_path, tower)
    plain, cached = loaded(tmp_path), loaded(tmp_path, feature_cache=str(tmp_path / "features"))
    ran: list[int] = []
    own = cached.vision_states
    monkeypatch.setattr(cached, "vision_states", lambda pixels: (ran.append(len(pixels)), own(pixels))[1])
    expected = loss_and_gradients(plain, visual_length=0)
    pictures = len(batch_for(plain).pixel_values)
    for passes in (1, 1):  # the second pass finds them all
        found = loss_and_gradients(cached, visual_length=0)
        assert len(ran) == passes
        assert sum(ran) == pictures
        for name, each in expected.items():
            assert torch.equal(found[name], each)
    loss_and_gradients(cached)  # prompts in the tower: nothing is constant
    assert len(ran) == 2
    other = loaded(tmp_path, feature_cache=str(tmp_path / "features"), feature_layer=-1)
    other_plain = loaded(tmp_path, feature_layer=-1)
    assert torch.equal(
        loss_and_gradients(other, visual_length=0)["losses"], loss_and_gradients(other_plain, visual_length=0)["losses"]
    )


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_packed_layers_are_the_model_with_their_dequantised_weights(tmp_path: Path, quantization: str) -> None:
    needs(quantization)  # type: ignore[arg-type]
    store_pair(tmp_path)
    packed, plain = loaded(tmp_path, quantization=quantization), loaded(tmp_path)
    names = {id(module): name for name, module in packed.named_modules()}
    layers = list(quantised_layers(packed))
    assert layers
    for layer in layers:
        plain.get_submodule(names[id(layer)]).weight.data.copy_(layer.dequantised(torch.float64))
    batch = batch_for(packed)
    torch.testing.assert_close(logits_of(packed, batch), logits_of(plain, batch), rtol=1e-6, atol=1e-6)
    attached(packed)
    check_like_library(packed, quantization)
    refuse_unless_like_library(packed, "training", Shortcuts())
    assert packed.base_parameters() == plain.base_parameters()
    assert packed.base_bytes() < plain.base_bytes()
    assert packed.fingerprint() != plain.fingerprint()
    unbuilt = stored_pair(tmp_path, "float64", quantization=quantization)
    unbuilt.build_on_meta()
    assert unbuilt.base_bytes() == packed.base_bytes()


@pytest.mark.parametrize("tower", ["timm with registers", "open_clip"])
def test_counted_is_what_the_files_hold_of_tower_projector_and_language_model(tmp_path: Path, tower: str) -> None:
    store_pair(tmp_path, tower)
    files = ["projector.safetensors", "language/model.safetensors"]
    held = sum(each.numel() for file in files for each in load_file(tmp_path / file).values())
    (weights,) = (tmp_path / "tower").glob("*.safetensors")
    of_tower = {name: each.numel() for name, each in load_file(weights).items()}
    if tower == "open_clip":  # without the text's side, and the projection beside it
        of_tower = {name: size for name, size in of_tower.items() if name.startswith("visual.")}
        assert of_tower.pop("visual.proj") > 0
    backbone = stored_pair(tmp_path)
    backbone.build_on_meta()
    assert backbone.base_parameters() == held + sum(of_tower.values())


@pytest.mark.parametrize(
    ("path", "trains", "in_sequence"), [("auto", True, True), ("auto", False, False), ("prefix", True, False)]
)
def test_prompts_stand_in_the_sequence_while_layers_of_the_tower_draw(
    tmp_path: Path, path: str, trains: bool, in_sequence: bool
) -> None:
    """As keys and values they would run, and draw, once for all samples of a batch."""
    store_pair(tmp_path)
    backbone = loaded(tmp_path)
    prompts = M2PT(3, 0, interaction=False, visual_rows_to_text="none", path=path)  # type: ignore[arg-type]
    method = Combined([Lora(2, vision=True, dropout=0.5, interaction=False), prompts])
    method.build(backbone, torch.Generator().manual_seed(7))
    method.train(trains)
    method.attach(backbone)
    backbone.visual_rows(batch_for(backbone).pixel_values)
    assert all(bool(block._forward_pre_hooks) == in_sequence for block in backbone.tower_blocks())
    method.detach(backbone)
    assert not any(block._forward_pre_hooks for block in backbone.tower_blocks())


def doubled(file: Path) -> None:
    save_file({name: tensor * 2 for name, tensor in load_file(file).items()}, file, {"format": "pt"})


def changed(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**content, **values}))


PARTS_OF_A_NAME: dict[str, Callable[[Path], object]] = {
    "tower": lambda pair: changed(pair / "tower" / "config.json", layer_norm_eps=1e-3),
    "pictures": lambda pair: changed(pair / "tower" / "preprocessor_config.json", image_mean=[0.1, 0.2, 0.3]),
    "tower's weights": lambda pair: doubled(pair / "tower" / "model.safetensors"),
    "projector": lambda pair: doubled(pair / "projector.safetensors"),
    "language model": lambda pair: changed(pair / "language" / "config.json", rms_norm_eps=1e-3),
    "language model's weights": lambda pair: doubled(pair / "language" / "model.safetensors"),
    "index": lambda pair: changed(pair / "language" / "model.safetensors.index.json", weight_map={}),
    "tokenizer": lambda pair: changed(pair / "language" / "tokenizer.json", version="2.0"),
    "tokenizer's settings": lambda pair: changed(pair / "language" / "tokenizer_config.json", legacy=True),
}


@pytest.mark.parametrize("what", PARTS_OF_A_NAME)
def test_everything_a_pair_is_built_from_is_in_its_name(tmp_path: Path, what: str) -> None:
    store_pair(tmp_path, "siglip")
    before = stored_pair(tmp_path).fingerprint()
    assert before.startswith("pair:")
    PARTS_OF_A_NAME[what](tmp_path)
    assert stored_pair(tmp_path).fingerprint() != before


def test_what_is_taken_from_the_tower_is_in_a_pairs_name(tmp_path: Path) -> None:
    store_pair(tmp_path, "siglip")
    choices: list[dict[str, Any]] = [{}, {"feature_layer": -1}, {"feature_layer": -1, "feature_norm": True}]
    assert len({stored_pair(tmp_path, **choice).fingerprint() for choice in choices}) == len(choices)


def test_kept_features_know_of_the_norm(tmp_path: Path) -> None:
    store_pair(tmp_path, "siglip")
    kept, found = str(tmp_path / "features"), []
    for cache in (kept, None):
        for norm in (False, True):
            backbone = loaded(tmp_path, feature_cache=cache, feature_layer=-1, feature_norm=norm)
            found.append(loss_and_gradients(backbone, visual_length=0)["losses"])
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])
    assert not torch.equal(found[0], found[1])


def test_a_pair_takes_no_more_rows_than_its_language_model(tmp_path: Path) -> None:
    store_pair(tmp_path)
    rotation = {"rope_type": "longrope", "short_factor": [1.0] * 6, "long_factor": [2.0] * 6, "factor": 4.0}
    changed(
        tmp_path / "language" / "config.json",
        rope_scaling={**rotation, "original_max_position_embeddings": 32},
        rope_parameters=None,
    )
    shape = stored_pair(tmp_path).shape
    assert shape.maximum_positions == 32
    assert "longrope" in shape.end_of_positions


@pytest.mark.parametrize("file", ["tower/model.safetensors", "language/model.safetensors", "projector.safetensors"])
def test_every_file_that_changed_unseen_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    monkeypatch.setattr(file_hashes, "SETTLED_SECONDS", -1.0)
    store_pair(tmp_path)
    backbone = stored_pair(tmp_path)
    backbone.fingerprint()
    backbone.verify_files()
    place = (tmp_path / file).resolve()
    monkeypatch.setitem(file_hashes._known, (place, file_hashes.stamp_of(place)), "0" * 64)
    with pytest.raises(BadInputError, match="changed, though size and times are what they were"):
        backbone.verify_files()
