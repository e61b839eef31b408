"""A backbone of a given size with random weights in the real classes, and one tokenised batch for all peers."""

import json
import tempfile
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.training.sizes import TrainingSize
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.quantised import QuantisedLinear, Quantization, packed_tensors, quantise_layers
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Batch, Span

IMAGE_MARK_ID = 3
"""LLaVA of transformers marks image rows with a token of the vocabulary; the random texts never use it."""
NOISE = 0.02
"""Added to every weight: library initialisers leave norms at one and biases at zero, which would hide mistakes."""


def write_configs(size: TrainingSize, folder: Path) -> None:
    """Writes open_clip's and transformers' configuration files."""
    vision = {
        "image_size": size.image_size,
        "layers": size.vision_layers,
        "width": size.vision_width,
        "patch_size": size.patch_size,
        "head_width": size.vision_head_width,
    }
    text = {"context_length": 4, "vocab_size": 10, "width": 8, "heads": 1, "layers": 1}  # CLIP's own; dropped again
    open_clip = {
        "model_cfg": {"embed_dim": 16, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    llama = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": size.text_width,
        "intermediate_size": size.text_hidden,
        "num_hidden_layers": size.text_layers,
        "num_attention_heads": size.text_width // size.text_head_width,
        "vocab_size": size.vocabulary,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    }
    (folder / "open_clip_config.json").write_text(json.dumps(open_clip))
    (folder / "config.json").write_text(json.dumps(llama))


def random_backbone(
    size: TrainingSize,
    device: str = "cpu",
    dtype: str = "float32",
    seed: int = 0,
    *,
    recomputes: bool = False,
    compile_backend: Literal["inductor", "aot_eager"] | None = None,
    quantization: Quantization | None = None,
) -> OpenClipLlama:
    """Builds a frozen backbone on a device from random weights.

    Args:
        size: What to build.
        device: Where the weights are drawn; nothing passes through the host's memory.
        dtype: Type of the frozen weights.
        seed: Of the weights.
        recomputes: Whether activations are computed again in the backward pass.
        compile_backend: What every layer is compiled with; None compiles nothing.
        quantization: How the weights of the decoder's layers are packed, from those drawn.
    """
    import open_clip
    from transformers import AutoConfig, AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as name:
        write_configs(size, Path(name))
        backbone = OpenClipLlama(
            f"{name}/open_clip_config.json", "none", name, "none", "none", dtype, recomputes, compile_backend
        )
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    torch.manual_seed(seed)
    with torch.device(device):
        backbone.vision_tower = open_clip.CLIP(**backbone._open_clip["model_cfg"]).visual.to(backbone.dtype)
        backbone.projector = nn.Linear(size.vision_width, size.text_width, dtype=backbone.dtype)
        # Not `.to(dtype)` afterwards: that would round the rotary frequencies too.
        backbone.language_model = AutoModelForCausalLM.from_config(
            config, dtype=backbone.dtype, trust_remote_code=False
        )
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=NOISE)
    backbone.requires_grad_(False)
    if quantization is not None:
        pack(backbone, quantization)
    backbone.finish()
    return backbone


def pack(backbone: OpenClipLlama, quantization: Quantization) -> None:
    """Packs the weights of a built decoder's layers where they lie; from files they are packed while they are read."""
    backbone.quantise_decoder(quantization)
    model = backbone.language_model
    plain = {name: each for name, each in model.named_modules() if isinstance(each, nn.Linear)}
    quantise_layers(model, model.model.layers, quantization)
    for name, layer in model.named_modules():
        if isinstance(layer, QuantisedLinear):
            state = packed_tensors("weight", plain.pop(name).weight.detach(), quantization)
            layer.load_state_dict(state, strict=True, assign=True)
    model.requires_grad_(False)


def batch_of(
    size: TrainingSize, lengths: list[tuple[int, int]] | None = None, device: str = "cpu", seed: int = 0
) -> Batch:
    """Returns random pictures and texts; padding, if any, stands on the right.

    Args:
        size: Says how many tokens there are and how many begin every text.
        lengths: For each sample its text tokens and how many of them, the last ones, are supervised; None: all alike.
        device: Where the tensors shall lie.
        seed: Of the numbers.
    """
    lengths = lengths or [(size.text_tokens, size.supervised)] * size.batch
    generator = torch.Generator().manual_seed(seed)
    columns = 1 + max(tokens for tokens, _ in lengths)  # the image's placeholder takes one
    shape = (len(lengths), columns)
    input_ids = torch.randint(IMAGE_MARK_ID + 1, size.vocabulary, shape, generator=generator)
    input_ids[:, : size.system_tokens] = input_ids[0, : size.system_tokens].clone()
    input_ids[:, size.system_tokens] = IMAGE_TOKEN_ID
    spans = torch.full(shape, int(Span.QUESTION))
    spans[:, : size.system_tokens] = Span.SYSTEM
    spans[:, size.system_tokens] = Span.IMAGE
    for row, (tokens, supervised) in enumerate(lengths):
        spans[row, 1 + tokens - supervised : 1 + tokens] = Span.ANSWER
        spans[row, 1 + tokens :] = Span.PADDING
    input_ids[spans == Span.PADDING] = 0
    labels = torch.where(spans == Span.ANSWER, input_ids, IGNORED_LABEL)
    pixels: Tensor = torch.randn(len(lengths), 3, size.image_size, size.image_size, generator=generator)
    names = [f"sample{number}" for number in range(len(lengths))]
    tasks = [("task",)] * len(lengths)
    return Batch(pixels, input_ids, labels, spans, names, tasks, int((labels != IGNORED_LABEL).sum())).to(device)
