"""Weight files as others write them: pickles of tensors, TorchScript archives, folders of transformers."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

PICTURES = {
    "image_processor_type": "CLIPImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 16},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 16, "width": 16},
    "do_rescale": True,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
}
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
    "projection_dim": 8,
}


class Tree(nn.Module):
    """A module for every name with a dot, as TorchScript wants them."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        inner: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            first, has_rest, rest = name.partition(".")
            if has_rest:
                inner.setdefault(first, {})[rest] = tensor
            elif tensor.is_floating_point():
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)
        for name, tree in inner.items():
            self.add_module(name, Tree(tree))

    def forward(self, one: Tensor) -> Tensor:
        return one


def write_torchscript(path: Path, tensors: Mapping[str, Tensor]) -> None:
    torch.jit.script(Tree(tensors)).save(str(path))


def write_pickled_shards(folder: Path, tensors: Mapping[str, Tensor], first: int) -> None:
    """Writes two shards, of which one holds the first few tensors, and their index."""
    names = list(tensors)
    shards = {f"pytorch_model-0000{number}-of-00002.bin": part for number, part in enumerate(halves(names, first), 1)}
    for shard, part in shards.items():
        torch.save({name: tensors[name] for name in part}, folder / shard)
    places = {name: shard for shard, part in shards.items() for name in part}
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def halves(names: list[str], first: int) -> tuple[list[str], list[str]]:
    return names[:first], names[first:]


def write_clip(folder: Path, kind: str, as_pickle: bool, **changes) -> nn.Module:
    """Writes a random tower of transformers in its own form; returns it.

    Args:
        folder: Made.
        kind: Name of the class: ``CLIPModel``, ``CLIPVisionModel`` or ``CLIPVisionModelWithProjection``.
        as_pickle: Write ``pytorch_model.bin`` in place of safetensors, with the table that older versions keep.
        changes: Keys of the vision configuration.
    """
    import transformers
    from safetensors.torch import load_file

    vision = transformers.CLIPVisionConfig(**{**TOWER, **changes})
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    whole = transformers.CLIPConfig(
        text_config={**text, "vocab_size": 20, "projection_dim": 8}, vision_config=vision.to_dict(), projection_dim=8
    )
    torch.manual_seed(0)
    model = getattr(transformers, kind)(whole if kind == "CLIPModel" else vision).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PICTURES))
    if as_pickle:
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        prefix = "" if kind == "CLIPVisionModel" else "vision_model."
        table = {f"{prefix}embeddings.position_ids": torch.arange(17)[None]}
        torch.save({**table, **tensors}, folder / "pytorch_model.bin")
    return model
