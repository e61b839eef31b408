"""Tiny pairs of tower and decoder as files, in the forms in which people have them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.testing.small_processor import word_tokenizer
from tests.support.towers.small import HEADS, IMAGE, LAYERS, PATCH, WIDTH, small_tower

TEXT_WIDTH = 32
TOWERS = (
    "clip", "whole clip", "siglip", "whole siglip", "dinov2", "dinov2 with registers", "dinov3", "timm",
    "timm with registers", "open_clip",
)  # fmt: skip
PICTURES = {
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.6],
    "image_std": [0.3, 0.25, 0.2],
    "resample": 3,
}
SQUARE = {"height": IMAGE, "width": IMAGE}
CROPPED = {**PICTURES, "size": {"shortest_edge": IMAGE}, "do_center_crop": True, "crop_size": SQUARE}
LIBRARY_PICTURES = {
    "clip": {**CROPPED, "image_processor_type": "CLIPImageProcessor", "do_convert_rgb": True},
    "siglip": {**PICTURES, "image_processor_type": "SiglipImageProcessor", "size": SQUARE},
    "dinov2": {**CROPPED, "image_processor_type": "BitImageProcessor", "do_convert_rgb": True},
    "dinov2 with registers": {**CROPPED, "image_processor_type": "BitImageProcessor", "do_convert_rgb": True},
    "dinov3": {**PICTURES, "image_processor_type": "DINOv3ViTImageProcessorFast", "size": SQUARE, "resample": 2},
}
OLD_NAMES = {".q_proj": ".attention.query", ".k_proj": ".attention.key", ".v_proj": ".attention.value"}


def perturbed(module: nn.Module, seed: int) -> Any:
    """Moves every tensor a little: libraries leave norms at one and biases at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


def store_tower(folder: Path, kind: str) -> None:
    """Writes a tower of random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind.startswith("timm"):
        store_timm(folder, registers=4 if kind.endswith("registers") else 0)
    elif kind == "open_clip":
        store_open_clip(folder)
    else:
        name = kind.removeprefix("whole ")
        store_of_transformers(folder, name, whole=name != kind)
        (folder / "preprocessor_config.json").write_text(json.dumps(LIBRARY_PICTURES[name]))


def store_of_transformers(folder: Path, name: str, *, whole: bool) -> None:
    """Writes CLIP, SigLIP or DINOv2 as the library saves it; DINOv2 under the names of published files."""
    kinds = {
        "clip": "clip_vision_model", "siglip": "siglip_vision_model", "dinov2": "dinov2",
        "dinov2 with registers": "dinov2_with_registers", "dinov3": "dinov3_vit",
    }  # fmt: skip
    tower = small_tower(kinds[name], "sdpa", torch.float32)
    if not whole:
        tower.save_pretrained(folder)
        if name == "dinov2":
            file = folder / "model.safetensors"
            save_file({old_name(own): tensor for own, tensor in tower.state_dict().items()}, file, {"format": "pt"})
        return
    from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 9}
    config_class, model_class = (CLIPConfig, CLIPModel) if name == "clip" else (SiglipConfig, SiglipModel)
    model = model_class(config_class(vision_config=tower.config.to_dict(), text_config=text))
    model.vision_model.load_state_dict(tower.state_dict())
    model.save_pretrained(folder)


def old_name(name: str) -> str:
    """Returns what published files of DINOv2 call a tensor."""
    if ".attention." not in name:
        return name
    for new, old in OLD_NAMES.items():
        name = name.replace(new, old)
    return name.replace(".o_proj", ".output.dense")


def store_timm(folder: Path, registers: int, **others: Any) -> None:
    """Writes a vision transformer of timm with layer scale, as its hub folders are."""
    import timm

    arguments = {
        "img_size": IMAGE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": LAYERS, "num_heads": HEADS,
        "init_values": 0.5, "mlp_ratio": 2,
    }  # fmt: skip
    arguments |= {"reg_tokens": registers, "no_embed_class": True} if registers else {}
    arguments |= others
    name = "vit_small_patch14_dinov2"
    torch.manual_seed(0)
    save_file(
        perturbed(timm.create_model(name, num_classes=0, **arguments), 1).state_dict(), folder / "model.safetensors"
    )
    pretrained = {
        "input_size": [3, IMAGE, IMAGE], "mean": [0.5, 0.4, 0.6], "std": [0.3, 0.25, 0.2],
        "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center",
    }  # fmt: skip
    content = {"architecture": name, "num_classes": 0, "model_args": arguments, "pretrained_cfg": pretrained}
    (folder / "config.json").write_text(json.dumps(content))


def store_open_clip(folder: Path) -> None:
    """Writes an open_clip model, as its hub folders are."""
    import open_clip

    model = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": IMAGE, "layers": LAYERS, "width": WIDTH, "patch_size": PATCH, "head_width": WIDTH // HEADS,
        },
        "text_cfg": {"context_length": 4, "vocab_size": 10, "width": 8, "heads": 1, "layers": 1},
        "quick_gelu": True,
    }  # fmt: skip
    pictures = {"mean": PICTURES["image_mean"], "std": PICTURES["image_std"]}
    content = {"model_cfg": model, "preprocess_cfg": pictures}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    torch.manual_seed(0)
    save_file(perturbed(open_clip.CLIP(**model), 1).state_dict(), folder / "open_clip_model.safetensors")


def projector_tensors(form: str) -> dict[str, Tensor]:
    """Returns a random projector's tensors under the names of a form."""
    generator = torch.Generator().manual_seed(5)
    sizes = [(TEXT_WIDTH, WIDTH)] if form == "linear" else [(TEXT_WIDTH, WIDTH), (TEXT_WIDTH, TEXT_WIDTH)]
    names = {"linear": [""], "llava": ["0.", "2."], "transformers": ["linear_1.", "linear_2."]}[form]
    tensors = {}
    for name, size in zip(names, sizes, strict=True):
        tensors[f"{name}weight"] = torch.randn(size, generator=generator) * 0.2
        tensors[f"{name}bias"] = torch.randn(size[0], generator=generator) * 0.2
    return tensors


def store_pair(folder: Path, tower: str = "clip", projector: str = "llava") -> None:
    """Writes a pair: ``tower``, ``language`` (grouped heads, a head width of its own) and ``projector.safetensors``."""
    from transformers import LlamaConfig, LlamaForCausalLM

    store_tower(folder / "tower", tower)
    save_file(projector_tensors(projector), folder / "projector.safetensors")
    torch.manual_seed(2)
    config = LlamaConfig(
        hidden_size=TEXT_WIDTH, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        head_dim=12, vocab_size=50, max_position_embeddings=128, tie_word_embeddings=False,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    perturbed(LlamaForCausalLM(config), 3).save_pretrained(folder / "language")
    word_tokenizer().save_pretrained(folder / "language")


def stored_pair(folder: Path, dtype: Any = "float32", **arguments: Any) -> TowerAndDecoder:
    """Returns the pair that a folder holds, not loaded."""
    places = {"vision_tower": "tower", "language_model": "language", "projector": "projector.safetensors"}
    return TowerAndDecoder(**{key: str(folder / place) for key, place in places.items()}, dtype=dtype, **arguments)
