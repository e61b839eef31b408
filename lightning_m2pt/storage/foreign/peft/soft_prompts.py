"""PEFT's prefix tuning and prompt tuning as methods of this project.

A prefix is learned keys and values in front of every layer's own, without a rotation, and the first token has position
P: ``PrefixTuning``, number for number. An adapter that was trained through an MLP (``prefix_projection``) is saved by
PEFT as the keys and values that the MLP makes. A prompt is rows in front of the first token, at positions 0 to P - 1:
``M2PT`` with shallow textual prompts.
"""

from collections.abc import Sequence

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.storage.foreign.peft.carried import refuse_base_for_prompts
from lightning_m2pt.storage.foreign.peft.names import PREFIX_TUNING, PROMPT_BEGINNING, PROMPT_EMBEDDINGS
from lightning_m2pt.storage.foreign.peft.reading import PeftFolder
from lightning_m2pt.storage.foreign.peft.translation import Translation, interaction_sources

KNOWN = (
    "encoder_hidden_size",  # of the MLP that made a prefix
    "init_weights",
    "num_attention_heads",
    "num_layers",
    "num_transformer_submodules",
    "num_virtual_tokens",
    "prefix_projection",
    "prompt_tuning_init",
    "prompt_tuning_init_text",
    "token_dim",
    "tokenizer_kwargs",
    "tokenizer_name_or_path",
)
PREFIX_TENSOR, ROWS_TENSOR = "prefix.embedding", "textual_prompts.rows.0"


def translated_prompt(peft: PeftFolder, backbone: Backbone) -> Translation:
    """Returns a prefix or a prompt in this project's words.

    Args:
        peft: The folder.
        backbone: The base, built.

    Raises:
        BadInputError: If it does not fit the base, or its files say different things.
    """
    peft.refuse_unknown_keys(KNOWN, {})
    length, shape = peft.count("num_virtual_tokens"), backbone.shape
    if peft.config.get("num_transformer_submodules", 1) not in (None, 1):
        raise peft.wrong("num_transformer_submodules", "1: a language model without an encoder")
    if peft.config.get("num_layers") not in (None, shape.text_layers):
        raise peft.wrong("num_layers", f"{shape.text_layers}, the layers of this base's language model")
    refuse_other_base(peft, backbone)
    others = {name.removeprefix(PROMPT_BEGINNING): name for name in peft.stored if name != PROMPT_EMBEDDINGS}
    interaction = interaction_sources(peft, others, backbone)
    if peft.kind == PREFIX_TUNING:
        heads, width = shape.text_key_value_heads, shape.text_head_width
        require_keys(peft, heads, width)
        require_shape(
            peft,
            [length, shape.text_layers * 2 * heads * width],
            f"2 x {shape.text_layers} layers x {heads} heads x {width}",
        )
        method: PrefixTuning | M2PT = PrefixTuning(length, interaction=bool(interaction))
        return Translation(method, {PREFIX_TENSOR: PROMPT_EMBEDDINGS, **interaction})
    require_shape(peft, [length, shape.text_width], "rows of the language model's width")
    method = M2PT(
        visual_length=0,
        textual_length=length,
        textual_depth="shallow",
        interaction=bool(interaction),
        visual_rows_to_text="none",
    )
    return Translation(method, {ROWS_TENSOR: PROMPT_EMBEDDINGS, **interaction})


def refuse_other_base(peft: PeftFolder, backbone: Backbone) -> None:
    """Refuses bases with which a prefix or a prompt would be another one here than in PEFT.

    Raises:
        BadInputError: Naming why.
    """
    if not isinstance(backbone, VisionLanguageModel | OpenClipLlama | TowerAndDecoder):
        raise BadInputError(
            f"{type(backbone).__name__} is no base that PEFT knows, too",
            where="model.backbone",
            expected="a base of the library's classes",
        )
    refuse_base_for_prompts(backbone, "whole" if isinstance(backbone, VisionLanguageModel) else "language", peft.kind)


def require_keys(peft: PeftFolder, heads: int, width: int) -> None:
    """Compares how a prefix's numbers are cut into heads with the base's keys.

    Raises:
        BadInputError: If they differ.
    """
    own = {"num_attention_heads": heads, "token_dim": heads * width}
    for key, value in own.items():
        if peft.config.get(key) != value:
            raise peft.wrong(key, f"{value}: this base's keys have {heads} heads of width {width}")


def require_shape(peft: PeftFolder, shape: Sequence[int], meaning: str) -> None:
    """Compares the one tensor's sizes with what configuration and base say.

    Raises:
        BadInputError: If it is missing or has others.
    """
    stored = peft.stored.get(PROMPT_EMBEDDINGS)
    if stored is None or list(stored.shape) != list(shape):
        raise BadInputError(
            f"{PROMPT_EMBEDDINGS} is {'missing' if stored is None else list(stored.shape)}",
            where=str(peft.tensor_file),
            expected=f"{list(shape)}: num_virtual_tokens, and {meaning} of this base",
        )
