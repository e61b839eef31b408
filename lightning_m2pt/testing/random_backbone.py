"""A small backbone of the real classes with random weights, and batches for it."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.system.atomic_files import write_atomically

IMAGE_SIZE, PATCHES, WIDTH, VOCABULARY = 16, 16, 32, 50
VISION_LAYERS, TEXT_LAYERS = 4, 3


def write_configs(folder: Path, language: dict[str, Any] | None = None, tower: dict[str, Any] | None = None) -> None:
    """Writes open_clip's and transformers' configuration files of a tiny model with grouped heads.

    Keys in ``language`` and in ``tower`` (of ``vision_cfg``) are added to the files, or replace what they say.
    """
    vision = {"image_size": IMAGE_SIZE, "layers": VISION_LAYERS, "width": WIDTH, "patch_size": 4, "head_width": 8}
    vision |= tower or {}
    text = {"context_length": 4, "vocab_size": 10, "width": 8, "heads": 1, "layers": 1}
    open_clip = {
        "model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    llama = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 128,
        "tie_word_embeddings": False,
        **(language or {}),
    }
    for name, content in (("open_clip_config.json", open_clip), ("config.json", llama)):
        write_atomically(folder / name, json.dumps(content).encode())  # other processes may be reading them


def random_backbone(
    folder: Path,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    language: dict[str, Any] | None = None,
    tower: dict[str, Any] | None = None,
) -> OpenClipLlama:
    """Builds a loaded backbone of the stock classes with random weights.

    Args:
        folder: Where its configuration files are written; it must stay as long as the backbone is built again.
        dtype: Type of the weights.
        seed: Of the weights.
        language: Keys of the language model's configuration; see ``write_configs``.
        tower: Keys of the tower's.
    """
    import open_clip
    from transformers import AutoConfig, AutoModelForCausalLM

    write_configs(folder, language, tower)
    torch.manual_seed(seed)
    backbone = OpenClipLlama(str(folder / "open_clip_config.json"), "none", str(folder), "none", "none")
    backbone.vision_tower = open_clip.CLIP(**backbone._open_clip["model_cfg"]).visual
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    backbone.language_model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    backbone.projector = nn.Linear(WIDTH, WIDTH)
    # Library initialisers leave norms at one and biases at zero: random ones show more mistakes.
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    backbone.to(dtype)
    backbone.dtype = dtype
    backbone.finish()
    return backbone


def random_batch(
    size: int = 3, text: int = 9, answer: int = 3, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Batch:
    """Returns a batch of one question each; the last sample is one token shorter than the others."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(3, VOCABULARY, (size, text), generator=generator)
    input_ids[:, 1] = IMAGE_TOKEN_ID
    is_answer = torch.arange(text).expand(size, -1) >= text - answer
    spans = torch.where(is_answer, int(Span.ANSWER), int(Span.QUESTION))
    spans[:, 1] = Span.IMAGE
    spans[-1, -1] = Span.PADDING
    labels = torch.where(spans == Span.ANSWER, input_ids, IGNORED_LABEL)
    pixels: Tensor = torch.randn(size, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator, dtype=torch.float64).to(dtype)
    names = [f"sample{number}" for number in range(size)]
    return Batch(pixels, input_ids, labels, spans, names, [("task",)] * size, int((labels != IGNORED_LABEL).sum()))
