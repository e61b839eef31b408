"""A small CLIP model of open_clip with both towers, random, in a folder as published ones are."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

VISION = {"image_size": 24, "layers": 2, "width": 16, "patch_size": 8, "head_width": 8, "mlp_ratio": 2.0}
TEXT = {"context_length": 12, "vocab_size": 49_408, "width": 8, "heads": 2, "layers": 1}
MODEL = {"embed_dim": 8, "vision_cfg": VISION, "text_cfg": TEXT}
PICTURES = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}


def small_clip(logit_scale: float = 3.0) -> torch.nn.Module:
    """Returns the model; its numbers do not change from call to call."""
    import open_clip

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = open_clip.CLIP(**MODEL).eval().requires_grad_(False)
        for each in model.parameters():
            each.add_(0.2 * torch.randn(each.shape))
        model.logit_scale.fill_(logit_scale)
    return model


def stored_clip(folder: Path, model: torch.nn.Module | None = None, *, text_tower: bool = True) -> Path:
    """Writes the model's configuration and weights; without its text tower only what begins with ``visual``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL, "preprocess_cfg": PICTURES}))
    state = (model or small_clip()).state_dict()
    kept = {name: each.contiguous() for name, each in state.items() if text_tower or name.startswith("visual.")}
    save_file(kept, folder / "open_clip_model.safetensors")
    return folder
