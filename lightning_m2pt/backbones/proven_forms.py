"""Which language models are right on this project's own paths, as data: architecture, keys, values.

Our paths call parts of a decoder layer themselves (``prompts/shared_prefix.py``, ``prompts/prefix_decoder.py``), so a
model is right there only if it computes what Llama computes. What the tests have shown to be right is accepted;
everything else is refused with the reason, because it would train and answer wrongly without any error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_m2pt.backbones.config_values import (
    bad_key,
    divisible,
    equal_json,
    is_real,
    one_of,
    real_number,
    shown_value,
    whole_number,
)
from lightning_m2pt.backbones.foreign_code import INSTALLED_CODE_ONLY

MOST_LAYERS, MOST_WIDTH, MOST_HEADS = 1_000, 262_144, 4_096
MOST_TOKENS, MOST_POSITIONS = 4_194_304, 67_108_864
OFF = (None, False)


@dataclass(frozen=True)
class ProvenForm:
    """An architecture of transformers and what it is when a key is missing.

    Attributes:
        architecture: The class that configuration files name.
        sliding_window: The library's own window where the file has no such key; None is none.
    """

    architecture: str
    sliding_window: int | None = None


PROVEN_FORMS = {
    "llama": ProvenForm("LlamaForCausalLM"),
    "mistral": ProvenForm("MistralForCausalLM", sliding_window=4096),
}
"""By ``model_type``. Mistral is Llama's form as long as its window hides no position."""

QUANTISED = "quantised weights are not supported"
NORMS = "norms on queries and keys are left out on the fast paths"
MULTIPLIER = "multipliers are left out on the fast paths"
CAP = "soft-capping is left out on the fast paths"
WINDOW = "windows are left out on the fast paths"
ROTATION = "only the rotation of all of a head's numbers in every layer is proven"
EXPERTS = "experts are not proven"
OUTPUTS = "our paths read the library's usual outputs"
OTHER_FORM = "it changes what a layer computes, which is not Llama's form then"

VALUES: dict[str, tuple[tuple[Any, ...], str]] = {
    **INSTALLED_CODE_ONLY,
    "quantization_config": ((None,), QUANTISED),
    "compression_config": ((None,), QUANTISED),
    "hidden_act": (("silu",), "other activations are not proven"),
    "attention_bias": ((None, False, True), ""),
    "mlp_bias": ((None, False, True), ""),
    "tie_word_embeddings": ((False, True), ""),
    "qk_norm": (OFF, NORMS),
    "use_qk_norm": (OFF, NORMS),
    "qk_layernorm": (OFF, NORMS),
    "embedding_multiplier": ((None, 1), MULTIPLIER),
    "attention_multiplier": ((None,), MULTIPLIER),
    "residual_multiplier": ((None, 1), MULTIPLIER),
    "logits_scaling": ((None, 1), MULTIPLIER),
    "logit_scale": ((None, 1), MULTIPLIER),
    "lm_head_multiplier": ((None, 1), MULTIPLIER),
    "logits_mup_width_multiplier": ((None, 1), MULTIPLIER),
    "query_pre_attn_scalar": ((None,), MULTIPLIER),
    "scale_emb": ((None, 1), MULTIPLIER),
    "scale_depth": ((None,), MULTIPLIER),
    "dim_model_base": ((None,), MULTIPLIER),
    "attn_logit_softcapping": ((None,), CAP),
    "final_logit_softcapping": ((None,), CAP),
    "clip_qkv": ((None,), CAP),
    "use_sliding_window": (OFF, WINDOW),
    "attention_chunk_size": ((None,), WINDOW),
    "no_rope_layers": ((None, []), ROTATION),
    "no_rope_layer_interval": ((None, 0), ROTATION),
    "partial_rotary_factor": ((None, 1), ROTATION),
    "rotary_pct": ((None, 1), ROTATION),
    "rope_interleaved": (OFF, ROTATION),
    "alibi": (OFF, ROTATION),
    "num_experts": ((None, 0), EXPERTS),
    "num_local_experts": ((None, 0), EXPERTS),
    "n_routed_experts": ((None, 0), EXPERTS),
    "is_causal": ((None, True), OTHER_FORM),
    "use_bidirectional_attention": (OFF, OTHER_FORM),
    "is_encoder_decoder": (OFF, OTHER_FORM),
    "add_cross_attention": (OFF, OTHER_FORM),
    "use_parallel_residual": (OFF, OTHER_FORM),
    "kv_sharing_modes": ((None,), OTHER_FORM),
    "num_kv_shared_layers": ((None, 0), OTHER_FORM),
    "pruned_heads": ((None, {}), OTHER_FORM),
    "fusion_config": ((None,), OTHER_FORM),
    "distributed_config": ((None,), OTHER_FORM),
    "gradient_checkpointing": (OFF, "model.backbone.activation_checkpointing decides"),
    "return_dict": ((None, True), OUTPUTS),
    "output_attentions": (OFF, OUTPUTS),
    "output_hidden_states": (OFF, OUTPUTS),
    "torchscript": (OFF, OUTPUTS),
}
"""Key, the values that are accepted (a missing key is), and why no other is. Keys that stand nowhere here are ignored,
as the library's own Llama ignores them."""

ROTATIONS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
"""Rotations that are proven, with the numbers each needs."""
LENGTH_DEPENDENT = ("dynamic", "longrope", "su")


def check_language_config(config: Mapping[str, Any], path: Path) -> None:
    """Looks whether a language model's ``config.json`` describes a proven form of sizes that fit together.

    Args:
        config: Its content.
        path: The file, for messages.

    Raises:
        BadInputError: At the first thing that is wrong or not proven, naming its key.
    """
    check_values(config, path, ("auto_map", "quantization_config", "compression_config"))
    form = proven_form(config, path)
    check_values(config, path, tuple(VALUES))
    check_sizes(config, path)
    check_rotation(config, path)
    positions = config["max_position_embeddings"]
    window = config.get("sliding_window", form.sliding_window)
    if window is not None and (not is_real(window) or window < positions):
        raise bad_key(
            path, "sliding_window", f"{shown_value(window)} is shorter than the {positions} positions", "null", WINDOW
        )
    layer_types = config.get("layer_types")
    if layer_types is not None and layer_types != ["full_attention"] * config["num_hidden_layers"]:
        raise bad_key(
            path, "layer_types", f"{shown_value(layer_types)} is not supported", "full_attention a layer", WINDOW
        )


def proven_form(config: Mapping[str, Any], path: Path) -> ProvenForm:
    """Returns the form that a configuration names.

    Raises:
        BadInputError: If it is none of the proven ones.
    """
    kind, named = config.get("model_type"), config.get("architectures")
    form = PROVEN_FORMS.get(kind) if isinstance(kind, str) else None
    listed = " or ".join(each.architecture for each in PROVEN_FORMS.values())
    hint = "other models would train and answer wrongly on the fast paths"
    if form is None:
        what = "this key is missing" if "model_type" not in config else f"{shown_value(kind)} is not a proven form"
        raise bad_key(path, "model_type", what, f"{' or '.join(PROVEN_FORMS)}: {listed}", hint)
    if named is not None and named != [form.architecture]:
        raise bad_key(path, "architectures", f"{shown_value(named)} is not a proven form", form.architecture, hint)
    return form


def check_values(config: Mapping[str, Any], path: Path, keys: tuple[str, ...]) -> None:
    """Refuses values of these keys that are not accepted.

    Raises:
        BadInputError: At the first.
    """
    for key in keys:
        accepted, reason = VALUES[key]
        one_of(config, key, path, accepted, reason)


def check_sizes(config: Mapping[str, Any], path: Path) -> None:
    """Looks whether the sizes are numbers a model can have and divide as attention needs it.

    Raises:
        BadInputError: If one is missing, no number, out of range, or does not divide.
    """
    whole_number(config, "num_hidden_layers", path, MOST_LAYERS)
    width = whole_number(config, "hidden_size", path, MOST_WIDTH)
    whole_number(config, "intermediate_size", path, 4 * MOST_WIDTH)
    heads = whole_number(config, "num_attention_heads", path, MOST_HEADS)
    groups = whole_number(config, "num_key_value_heads", path, MOST_HEADS, default=heads)
    whole_number(config, "vocab_size", path, MOST_TOKENS)
    whole_number(config, "max_position_embeddings", path, MOST_POSITIONS)
    head_width = divisible(path, "hidden_size", width, "num_attention_heads", heads)
    divisible(path, "num_attention_heads", heads, "num_key_value_heads", groups)
    head_width = whole_number(config, "head_dim", path, MOST_WIDTH, default=head_width)
    if head_width % 2:
        raise bad_key(
            path, "head_dim", f"{head_width} numbers a head are odd", "an even number: they are rotated in pairs"
        )
    real_number(config, "rms_norm_eps", path, 0.1, default=1e-6)


def check_rotation(config: Mapping[str, Any], path: Path) -> None:
    """Looks whether the rotation of positions is a proven one, said once.

    Raises:
        BadInputError: If its type is not proven, a number is missing or unknown, or two places say different things.
    """
    key = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    rotation = config.get(key) or {}
    if not isinstance(rotation, dict):
        raise bad_key(path, key, f"{shown_value(rotation)} is no JSON object", "a JSON object")
    other = config.get("rope_parameters")
    if key == "rope_scaling" and other and other != rotation:
        raise bad_key(path, key, "rope_parameters says something else", "one of the two")
    kind = rotation.get("rope_type", rotation.get("type", "default"))
    if "type" in rotation and rotation["type"] != kind:
        raise bad_key(path, f"{key}.type", f"rope_type says {shown_value(kind)}", "one of the two")
    if not isinstance(kind, str) or kind not in ROTATIONS:
        reason = "a rotation that depends on the length" if kind in LENGTH_DEPENDENT else "this rotation"
        raise bad_key(
            path,
            f"{key}.rope_type",
            f"{shown_value(kind)} is not supported",
            " or ".join(ROTATIONS),
            f"{reason} is not proven",
        )
    outer = {name: config[name] for name in ("rope_theta", "original_max_position_embeddings") if name in config}
    for name, value in outer.items():
        if name in rotation and not equal_json(rotation[name], value):
            raise bad_key(
                path,
                f"{key}.{name}",
                f"{shown_value(rotation[name])}, but {name} is {shown_value(value)}",
                "one number",
            )
    numbers = {**outer, **rotation}
    real_number(numbers, f"{key}.rope_theta", path, 1e15, default=10_000.0)
    one_of(rotation, f"{key}.partial_rotary_factor", path, (None, 1), ROTATION)
    for name in ROTATIONS[kind]:
        real_number(numbers, f"{key}.{name}", path, MOST_POSITIONS)
    known = {"type", "rope_type", "rope_theta", "partial_rotary_factor", *ROTATIONS[kind]}
    unknown = sorted(set(rotation) - known)
    if unknown:
        raise bad_key(
            path,
            f"{key}.{unknown[0]!s:.40}",
            f"unknown to the rotation {kind}",
            ", ".join(ROTATIONS[kind]) or "nothing more",
        )
    if kind == "llama3" and not numbers["low_freq_factor"] < numbers["high_freq_factor"]:
        raise bad_key(path, f"{key}.high_freq_factor", "it is not above low_freq_factor", "a larger number")
