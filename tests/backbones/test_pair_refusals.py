"""What is wrong with a pair's folders and settings, or not proven, is refused by name before weights load."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_m2pt.backbones import quantised
from lightning_m2pt.backbones.towers.known import REFUSED
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.methods.m2pt import M2PT
from tests.support.stored_backbone import change_bytes, change_json, change_tensors
from tests.support.towers.stored_pairs import store_pair, stored_pair

CONFIG, PICTURES, WEIGHTS = "tower/config.json", "tower/preprocessor_config.json", "tower/model.safetensors"


def remove(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def without_first(file: str) -> Callable[[Path], None]:
    return change_tensors(file, lambda tensors: dict(list(tensors.items())[1:]))


def without_last(file: str) -> Callable[[Path], None]:
    return change_tensors(file, lambda tensors: dict(sorted(tensors.items())[:-1]))


def code(folder: Path) -> None:
    (folder / "tower" / "modeling_clip.py").write_text("raise SystemExit(7)")


def renamed_pickle(folder: Path) -> None:
    torch.save({"x": torch.ones(1)}, folder / WEIGHTS)


def under_both_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {f"vision_model.{name}": tensor.clone() for name, tensor in tensors.items()}


SPOILT: list[tuple[str, Callable[[Path], Any], str]] = [
    ("clip", remove(CONFIG), "there is no tower"),
    ("clip", change_json(CONFIG, "model_type", value="resnet"), "'resnet' is no proven tower"),
    ("clip", change_json(CONFIG, "hidden_act", value="relu"), "'relu' is not supported"),
    ("clip", change_json(CONFIG, "num_attention_heads", value=5), "not a multiple of the number of attention heads"),
    ("clip", change_json(CONFIG, "hidden_size", value=10**9), "does not fit"),
    ("clip", change_json(CONFIG, "num_channels", value=1), "1 is not supported"),
    ("clip", change_json(CONFIG, "num_hidden_layers", value=5), "missing encoder.layers.4"),
    ("clip", change_json(CONFIG, "auto_map", value={"AutoModel": "x.Y"}), "auto_map"),
    ("clip", change_json(CONFIG, "quantization_config", value={"bits": 4}), "weights are packed here"),
    ("clip", code, "brings code"),
    ("clip", renamed_pickle, "a pickle, which is never opened"),
    ("clip", change_bytes(WEIGHTS, lambda content: content[:-40]), "cut or damaged"),
    ("clip", without_first(WEIGHTS), "tensors missing"),
    ("clip", change_tensors(WEIGHTS, lambda own: own.update(extra=torch.ones(1))), "left over extra"),
    ("clip", change_json(PICTURES, "crop_size", value={"height": 20, "width": 20}), "makes pictures of 20 pixels"),
    ("clip", change_json(PICTURES, "crop_size", value={"height": 16, "width": 20}), "is no square"),
    ("clip", change_json(PICTURES, "image_processor_type", value="ViltImageProcessor"), "is not proven"),
    ("clip", change_json(PICTURES, "do_normalize", value=False), "do_normalize"),
    ("clip", change_json(PICTURES, "resample", value=0), "resample"),
    ("clip", change_json(PICTURES, "image_std", value=[1, 1]), "image_std"),
    ("clip", change_json(PICTURES, "image_std", value=[0, 1, 1]), "three numbers above 0"),
    ("clip", change_json(PICTURES, "image_std", value=[1e-300, 1, 1]), "infinite numbers"),
    ("clip", change_json(PICTURES, "image_mean", value=None), "this key is missing"),
    ("clip", change_json(PICTURES, "rescale_factor", value="x"), "transformers cannot prepare pictures so"),
    ("clip", change_json(PICTURES, "rescale_factor", value=0), "transformers cannot prepare pictures so"),
    ("clip", remove(PICTURES), "preprocessor_config"),
    ("dinov2", change_json(CONFIG, "use_swiglu_ffn", value=True), "weights lie in one tensor"),
    ("siglip", change_tensors(WEIGHTS, under_both_names), "two names"),
    ("timm", change_json(CONFIG, "architecture", value="hf-hub:timm/vit_tiny"), "no model of timm"),
    ("timm", change_json(CONFIG, "architecture", value="resnet18"), "resnet18"),
    ("timm", change_json(CONFIG, "architecture", value="vit_base_patch16_rope_224"), "vit_base_patch16_rope_224"),
    ("timm", change_json(CONFIG, "model_args", "pretrained", value=True), "unknown pretrained"),
    ("timm", change_json(CONFIG, "model_args", "depth", value=10**9), "depth"),
    ("timm", change_json(CONFIG, "model_args", "depth", value=0), "depth"),
    ("timm", change_json(CONFIG, "pretrained_cfg", value=0), "pretrained_cfg"),
    ("timm", change_json(CONFIG, "pretrained_cfg", "crop_pct", value=0.9), "crop_pct"),
    ("timm", change_json(CONFIG, "pretrained_cfg", "input_size", value=[3, 16, 20]), "input_size"),
    ("timm", without_first(WEIGHTS), "tensors missing"),
    ("open_clip", change_json("tower/open_clip_config.json", "model_cfg", "embed_dim", value="x"), "embed_dim"),
    ("open_clip", without_last("tower/open_clip_model.safetensors"), "tensors missing"),
    ("clip", remove("language/model.safetensors"), "model.safetensors"),
    ("clip", change_json("language/config.json", "model_type", value="opt"), "is not what opt is"),
    ("clip", remove("language/tokenizer.json"), r"tokenizer\.json: the file is missing"),
    ("clip", remove("language/tokenizer_config.json"), "tokenizer_config.json cannot be read"),
]


@pytest.mark.parametrize(("tower", "spoil", "message"), SPOILT, ids=[f"{one[0]}: {one[2]}" for one in SPOILT])
def test_a_spoilt_folder_is_refused_before_weights_load(
    tmp_path: Path, tower: str, spoil: Callable[[Path], Any], message: str
) -> None:
    store_pair(tmp_path, tower)
    stored_pair(tmp_path).check_files()
    spoil(tmp_path)
    with pytest.raises(BadInputError, match=message):
        stored_pair(tmp_path).check_files()


@pytest.mark.parametrize("kind", REFUSED)
def test_towers_that_are_not_legal_are_refused_by_their_reason(tmp_path: Path, kind: str) -> None:
    store_pair(tmp_path)
    change_json(CONFIG, "model_type", value=kind)(tmp_path)
    with pytest.raises(BadInputError) as refused:
        stored_pair(tmp_path)
    assert REFUSED[kind] in str(refused.value)


@pytest.mark.parametrize(
    ("tower", "arguments", "message"),
    [
        ("clip", {"feature_layer": 0}, "feature_layer"),
        ("clip", {"feature_layer": 5}, "feature_layer"),
        ("clip", {"feature_layer": -5}, "feature_layer"),
        ("clip", {"feature_layer": -1, "feature_norm": True}, "trained on CLS alone"),
        ("siglip", {"feature_norm": True}, "block 3 of 4 has no norm"),
        ("open_clip", {"feature_layer": -1, "feature_norm": True}, "made for pooling"),
        ("open_clip", {"image_size": 24}, "positions are not interpolated"),
        ("clip", {"image_size": 18}, "no multiple of a patch"),
        ("timm", {"image_size": 18}, "no multiple of a patch"),
        ("clip", {"vision_revision": "main"}, "a folder has no revision"),
        ("clip", {"quantization": "nf4", "compile_backend": "aot_eager"}, "not compiled"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    tmp_path: Path, tower: str, arguments: dict[str, Any], message: str
) -> None:
    store_pair(tmp_path, tower)
    with pytest.raises(BadInputError, match=message):
        stored_pair(tmp_path, **arguments)


def test_a_projector_of_another_pair_is_refused(tmp_path: Path) -> None:
    store_pair(tmp_path)
    file = tmp_path / "projector.safetensors"
    save_file({**load_file(file), "0.weight": torch.ones(32, 768)}, file)
    with pytest.raises(BadInputError, match=r"0\.weight \[32, 768\], not \[32, 24\]"):
        stored_pair(tmp_path).check_files()


def test_what_the_machine_lacks_is_said_before_weights_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("none here")

    store_pair(tmp_path)
    (tmp_path / "features").write_text("no folder")
    with pytest.raises(EnvironmentFailure, match="features cannot be kept there"):
        stored_pair(tmp_path, feature_cache=str(tmp_path / "features")).check_files()
    monkeypatch.setattr(quantised, "bitsandbytes_functions", missing)
    with pytest.raises(EnvironmentFailure, match="bitsandbytes cannot be imported"):
        stored_pair(tmp_path, quantization="nf4").check_files()
    stored_pair(tmp_path, quantization="int8").check_files()


def test_the_prefix_path_is_refused_where_the_tower_has_none(tmp_path: Path) -> None:
    store_pair(tmp_path, "timm")
    with pytest.raises(BadInputError, match="cannot be given keys beside its own"):
        M2PT(2, 0, path="prefix").check(stored_pair(tmp_path).shape)
    M2PT(0, 2, path="prefix").check(stored_pair(tmp_path).shape)
