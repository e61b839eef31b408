"""The LLaVA that a CLIP tower of open_clip, a linear projector and a language model of transformers are together.

``LlavaForConditionalGeneration`` reads the hidden state before the tower's last block, without CLS, as this project
does. Its connector has two linear layers and an activation between them; with ``linear``, which transformers knows as
one, and an identity matrix behind it, the two are the one linear layer.
"""

from typing import Any

import torch

from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.foreign.clip_configs import PREPROCESSING, TRANSFORMERS_CONFIG, transformers_configs
from lightning_m2pt.storage.foreign.clip_layouts import sizes_of
from lightning_m2pt.storage.foreign.recognition import open_clip_tensors
from lightning_m2pt.storage.foreign.sources import read_source

TOWER, DECODER, CONNECTOR, HEAD = "model.vision_tower", "model.language_model", "model.multi_modal_projector", "lm_head"
"""Where the class keeps its parts."""
FIRST_OF_CONNECTOR, SECOND_OF_CONNECTOR = f"{CONNECTOR}.linear_1", f"{CONNECTOR}.linear_2"
PICTURE_TOKEN = "<image>"
"""Stands in a text once for each of a picture's rows."""
OPEN_CLIP = "visual."
NOT_OF_TEXT = ("architectures", "transformers_version", "auto_map")


def picture_settings(backbone: OpenClipLlama) -> dict[str, dict[str, Any]]:
    """Returns transformers' two configurations of the tower, by file.

    Raises:
        BadInputError: If the tower is no CLIP of transformers.
    """
    tensors = read_source(backbone.vision_weights).tensors
    tower = {
        name.removeprefix(OPEN_CLIP): one
        for name, one in open_clip_tensors(tensors).items()
        if name.startswith(OPEN_CLIP)
    }
    return transformers_configs(backbone.vision_config, sizes_of(tower, str(backbone.vision_weights)))


def picture_token(backbone: OpenClipLlama) -> tuple[Any, int, int]:
    """Returns the tokenizer with a token for pictures, the token's number, and how many rows embeddings need then."""
    tokenizer = backbone.processor().tokenizer
    tokenizer.add_tokens([PICTURE_TOKEN], special_tokens=True)
    number = int(tokenizer.convert_tokens_to_ids(PICTURE_TOKEN))
    return tokenizer, number, max(backbone.shape.vocabulary_size, number + 1)


def llava_config(backbone: OpenClipLlama) -> dict[str, Any]:
    """Returns the whole model's ``config.json``.

    Raises:
        BadInputError: If the tower is no CLIP of transformers.
    """
    language = read_json(backbone.language_folder / "config.json", "model.backbone.language_model")
    vision = picture_settings(backbone)[TRANSFORMERS_CONFIG]
    _, number, rows = picture_token(backbone)
    text = {key: value for key, value in language.items() if key not in NOT_OF_TEXT}
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": number,
        "image_seq_length": backbone.shape.patches,
        "projector_hidden_act": "linear",
        "multimodal_projector_bias": True,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": bool(language.get("tie_word_embeddings", False)),
        "vision_config": {key: value for key, value in vision.items() if key != "architectures"},
        "text_config": {**text, "vocab_size": rows, "dtype": backbone.dtype_name},
        "dtype": backbone.dtype_name,
    }


def on_meta(backbone: OpenClipLlama) -> Any:  # noqa: ANN401  (transformers' model)
    """Builds the whole model without memory.

    Raises:
        BadInputError: If the tower is no CLIP of transformers, or transformers refuses the configuration.
    """
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    content = llava_config(backbone)
    try:
        with torch.device("meta"):
            return LlavaForConditionalGeneration._from_config(LlavaConfig.from_dict(content), dtype=backbone.dtype)
    except Exception as error:  # its validators raise errors of their own kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInputError(
            f"transformers cannot build a LLaVA of it: {ascii(reason)[1:-1]:.200}",
            where=str(backbone.language_folder / "config.json"),
            expected="a language model that LLaVA may have",
        ) from error


def processor_settings(backbone: OpenClipLlama) -> dict[str, Any]:
    """Returns what the image processor is made of: Pillow's, whose pictures are this project's to the last bit."""
    settings = dict(picture_settings(backbone)[PREPROCESSING])
    return {**settings, "image_processor_type": "CLIPImageProcessorPil"}
