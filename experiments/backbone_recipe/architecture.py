"""The three parts of the embedded backbone, as the library classes that every other backbone uses."""

import math
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from open_clip.model import CLIPVisionCfg
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from experiments.backbone_recipe.settings import ArchitectureSettings

EMBEDDING_NAME = "language.model.embed_tokens.weight"
"""Name of the word embeddings among the tensors of a finished language stage."""


def open_clip_configuration(settings: ArchitectureSettings, vocabulary_size: int) -> dict[str, Any]:
    """Returns the vision tower's description in open_clip's own ``open_clip_config.json`` form.

    The text tower is described because that form demands it; none exists and none is shipped.
    """
    return {
        "model_cfg": {
            "embed_dim": settings.vision_embedding,
            "vision_cfg": {
                "image_size": settings.image_size,
                "layers": settings.vision_layers,
                "width": settings.vision_width,
                "head_width": settings.vision_head_width,
                "patch_size": settings.patch_size,
                "mlp_ratio": settings.vision_mlp_ratio,
            },
            "text_cfg": {
                "context_length": settings.maximum_positions,
                "vocab_size": vocabulary_size,
                "width": settings.language_width,
                "heads": settings.language_heads,
                "layers": settings.language_layers,
            },
        },
        "preprocess_cfg": {
            "mean": list(settings.image_mean),
            "std": list(settings.image_deviation),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }


def build_vision_tower(settings: ArchitectureSettings) -> VisionTransformer:
    """Builds the vision tower with open_clip's initial values."""
    configuration = CLIPVisionCfg(
        layers=settings.vision_layers,
        width=settings.vision_width,
        head_width=settings.vision_head_width,
        mlp_ratio=settings.vision_mlp_ratio,
        patch_size=settings.patch_size,
        image_size=settings.image_size,
    )
    width = int(configuration.width)
    return VisionTransformer(
        image_size=settings.image_size,
        patch_size=configuration.patch_size,
        width=width,
        layers=settings.vision_layers,
        heads=width // configuration.head_width,
        mlp_ratio=configuration.mlp_ratio,
        output_dim=settings.vision_embedding,
    )


def language_configuration(settings: ArchitectureSettings, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Returns the language model's configuration."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.language_width,
        intermediate_size=settings.language_intermediate,
        num_hidden_layers=settings.language_layers,
        num_attention_heads=settings.language_heads,
        num_key_value_heads=settings.language_heads,
        max_position_embeddings=settings.maximum_positions,
        rope_parameters={"rope_type": "default", "rope_theta": settings.rope_theta},
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )


@torch.no_grad()
def build_language_model(settings: ArchitectureSettings, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Builds the language model with initial values for training at this size.

    Embeddings are wide, since slots are sums of them; matrices that read have torch's own initial values, and those
    that write to the residual stream are small, for depth.
    """
    model = LlamaForCausalLM(language_configuration(settings, tokenizer))
    for name, parameter in model.named_parameters():
        if "embed_tokens" in name:
            nn.init.normal_(parameter, std=settings.embedding_deviation)
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            depth = math.sqrt(2 * settings.language_layers)
            nn.init.normal_(parameter, std=settings.output_deviation / math.sqrt(parameter.shape[1]) / depth)
        elif parameter.ndim == 2:
            nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
    return model


def normalise_pixels(images: numpy.ndarray, settings: ArchitectureSettings) -> Tensor:
    """Turns pictures (B, H, H, 3) uint8 into the tower's input (B, 3, S, S) float32, resized where H is not S."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    if pixels.shape[-1] != settings.image_size:
        # Pillow's bicubic filter, which tuning and evaluation resize with, within two of 255 levels.
        pixels = functional.interpolate(pixels, size=settings.image_size, mode="bicubic", antialias=True)
    pixels = pixels.float() / 255
    mean = torch.tensor(settings.image_mean).view(3, 1, 1)
    deviation = torch.tensor(settings.image_deviation).view(3, 1, 1)
    return (pixels - mean) / deviation


def visual_features(tower: VisionTransformer, pixels: Tensor) -> Tensor:
    """Returns the patches' features (B, N, W): the input of the last block, without CLS and not normalised."""
    last_used = len(tower.transformer.resblocks) - 2
    output = tower.forward_intermediates(
        pixels, indices=[last_used], stop_early=True, intermediates_only=True, output_fmt="NLC"
    )
    return output["image_intermediates"][0]


def unused_parameter_names(tower: VisionTransformer) -> tuple[str, ...]:
    """Returns the prefixes of the tower's parameters behind the features: the last block, the final norm, the head."""
    return (f"transformer.resblocks.{len(tower.transformer.resblocks) - 1}.", "ln_post.", "proj")


@dataclass
class RecipeModel:
    """The three parts and the tokenizer."""

    vision: VisionTransformer
    projector: nn.Linear
    language: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast

    def visual_rows(self, pixels: Tensor) -> Tensor:
        """Returns the image's rows in the language model (B, N, D)."""
        return self.projector(visual_features(self.vision, pixels))

    def logits(self, rows: Tensor, token_ids: Tensor) -> Tensor:
        """Returns the logits at the text's positions.

        Args:
            rows: (B, R, D) what stands between ``<s>`` and the text: an image's rows or slots.
            token_ids: (B, T) the text, padded on the right.

        Returns:
            (B, T, V); position t predicts token t + 1.
        """
        return text_logits(self.language, rows, token_ids)


def text_logits(language: LlamaForCausalLM, rows: Tensor, token_ids: Tensor) -> Tensor:
    """Returns the language model's logits (B, T, V) of a text behind ``<s>`` and rows (B, R, D)."""
    embedding = language.get_input_embeddings()
    beginning = torch.full((len(rows), 1), language.config.bos_token_id)
    # No mask: padding stands on the right, and a causal model's earlier positions do not see it.
    inputs = torch.cat([embedding(beginning), rows, embedding(token_ids)], dim=1)
    return language(inputs_embeds=inputs, use_cache=False, logits_to_keep=token_ids.shape[1]).logits
