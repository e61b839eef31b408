"""LLaVA of transformers around the weights of one of our backbones: the same model in the library's classes."""

import copy

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

from benchmarks.training.inputs import IMAGE_MARK_ID
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama

VISION, PROJECTOR, DECODER = "model.vision_tower", "model.multi_modal_projector", "model.language_model"


def llava_of(backbone: OpenClipLlama, attention: str) -> LlavaForConditionalGeneration:
    """Returns a frozen model that shares the backbone's storage; nothing is copied.

    LLaVA's connector has two layers, ours one: the second is taken out. No key-value cache is kept: training needs
    none, and the library's default would copy keys and values in every layer.

    Args:
        backbone: Loaded.
        attention: ``eager`` or ``sdpa``, for both towers.
    """
    shape = backbone.shape
    text = copy.deepcopy(backbone.language_model.config)
    text.use_cache = False
    vision = CLIPVisionConfig(
        hidden_size=shape.vision_width,
        intermediate_size=backbone.vision_tower.transformer.resblocks[0].mlp.c_fc.out_features,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=backbone.vision_tower.transformer.resblocks[0].attn.num_heads,
        image_size=shape.image_size,
        patch_size=shape.patch_size,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=IMAGE_MARK_ID,
        projector_hidden_act="linear",
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
        attn_implementation=attention,
    )
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    inner = model.model
    inner.multi_modal_projector.linear_2 = nn.Identity()
    model.load_state_dict(weights_of(backbone), assign=True)
    # What no state dict holds is still on the meta device.
    inner.language_model.rotary_emb = backbone.language_model.model.rotary_emb
    embeddings, device = inner.vision_tower.embeddings, backbone.projector.weight.device
    embeddings.position_ids = torch.arange(embeddings.num_positions, device=device)[None]
    return model.requires_grad_(False).eval()


def weights_of(backbone: OpenClipLlama) -> dict[str, Tensor]:
    """Returns the backbone's tensors by their names in LLaVA; open_clip keeps queries, keys and values in one."""
    tower, weights = backbone.vision_tower, {}
    embeddings = f"{VISION}.embeddings"
    weights[f"{embeddings}.class_embedding"] = tower.class_embedding
    weights[f"{embeddings}.position_embedding.weight"] = tower.positional_embedding
    modules: dict[str, nn.Module] = {
        f"{embeddings}.patch_embedding": tower.conv1,
        f"{VISION}.pre_layrnorm": tower.ln_pre,
        f"{VISION}.post_layernorm": tower.ln_post,
        f"{PROJECTOR}.linear_1": backbone.projector,
        DECODER: backbone.language_model.model,
        "lm_head": backbone.language_model.lm_head,
    }
    for number, block in enumerate(tower.transformer.resblocks):
        layer = f"{VISION}.encoder.layers.{number}"
        for kind, joined in (("weight", block.attn.in_proj_weight), ("bias", block.attn.in_proj_bias)):
            for part, tensor in zip("qkv", joined.chunk(3), strict=True):
                weights[f"{layer}.self_attn.{part}_proj.{kind}"] = tensor
        modules |= {
            f"{layer}.self_attn.out_proj": block.attn.out_proj,
            f"{layer}.layer_norm1": block.ln_1,
            f"{layer}.layer_norm2": block.ln_2,
            f"{layer}.mlp.fc1": block.mlp.c_fc,
            f"{layer}.mlp.fc2": block.mlp.c_proj,
        }
    for prefix, module in modules.items():
        weights |= {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}
    return {name: tensor.detach() for name, tensor in weights.items()}
