"""What an adapter says of its base, key by key."""

import json
from importlib.metadata import version
from pathlib import Path

import torch

from lightning_m2pt.backbones.embedded import embedded_backbone
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.storage.adapter_base import AdapterBase, adapter_base_of
from lightning_m2pt.storage.adapter_folder import CONFIG_FILE, save_adapter

OF_BASE = ("base_model_name_or_path", "base", "base_fingerprint", "base_dtype", "base_quantization", "pictures")


def config_of(folder: Path, base: AdapterBase) -> dict[str, object]:
    """Returns what a small adapter's configuration says."""
    backbone, method = embedded_backbone(), M2PT(0, 1, interaction=False)
    backbone.build_on_meta()
    method.build(backbone, torch.Generator())
    method.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in method.named_tensors().values():
            tensor.zero_()
    save_adapter(folder, method, base, "a card")
    config: dict[str, object] = json.loads((folder / CONFIG_FILE).read_text())
    return config


def test_all_of_a_backbone_is_said(tmp_path: Path) -> None:
    backbone = embedded_backbone()
    config = config_of(tmp_path / "adapter", adapter_base_of(backbone))
    assert {key: config[key] for key in OF_BASE if key in config} == {
        "base_model_name_or_path": backbone.readable_name(),
        "base": {"kind": "embedded", "class": "OpenClipLlama", "arguments": {"name": "testbed"}},
        "base_fingerprint": backbone.fingerprint(),
        "base_dtype": "float32",
        "pictures": {
            "size": 48,
            "mean": 3 * [0.35],
            "std": 3 * [0.3],
            "interpolation": "bicubic",
            "resize": "shortest_edge",
        },
    }


def test_what_is_not_known_is_left_out_and_keys_keep_their_order(tmp_path: Path) -> None:
    bare = config_of(tmp_path / "bare", AdapterBase("a base", "v2:1"))
    assert {key: bare[key] for key in OF_BASE if key in bare} == {
        "base_model_name_or_path": "a base",
        "base": {"kind": "files", "class": "", "arguments": {}},
        "base_fingerprint": "v2:1",
        "base_dtype": None,
    }
    assert list(bare)[:10] == [
        *("peft_type", "task_type", "base_model_name_or_path", "base", "base_fingerprint", "base_dtype"),
        *("template", "format", "written_by", "inference_mode"),
    ]
    packed = config_of(tmp_path / "packed", AdapterBase("a base", "v2:1", "bfloat16", "nf4"))
    assert (packed["base_dtype"], packed["base_quantization"]) == ("bfloat16", "nf4")
    assert packed["written_by"] == f"lightning_m2pt {version('lightning_m2pt')}"
