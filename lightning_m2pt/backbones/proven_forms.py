"""Which language models are proven on this project's own paths, as data: architecture, keys, values.

The paths run the library's own model and give its attention what stands in front of the rows
(``prompts/decoder_pass.py``), so most of what an architecture does beyond Llama is done. But a rotation that depends on
the length, or a mask that is not causal, would train and answer wrongly without any error. What the tests have shown to
be right is accepted, per architecture and key; everything else is refused with the reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightning_m2pt.backbones.config_values import (
    bad_key,
    divisible,
    is_real,
    one_of,
    real_number,
    shown_value,
    whole_number,
)
from lightning_m2pt.backbones.decoders.rotations import ALL_OF_A_HEAD, EVERYWHERE, MOST_POSITIONS, check_rotation
from lightning_m2pt.backbones.foreign_code import INSTALLED_CODE_ONLY

MOST_LAYERS, MOST_WIDTH, MOST_HEADS = 1_000, 262_144, 4_096
MOST_TOKENS = 4_194_304
OFF = (None, False)


@dataclass(frozen=True)
class ProvenForm:
    """An architecture of transformers: what it is when a key is missing, and what it may say beyond Llama.

    Attributes:
        architecture: The class that configuration files name.
        numbers: Keys that hold a number above 0, or null.
        values: Keys and what is accepted of them, in the place of ``VALUES``.
        needed: Keys that a file must have, because the library's own default follows from no other size.
        window: What the library takes from ``sliding_window``: nothing, a window of every layer, or one of the layers
            that ``layer_types`` calls sliding.
        skips_rotation: Whether ``no_rope_layers`` may name layers without rotation.
        rotations: The kinds of rotation it is proven with.
        partial_rotation: Whether a part of a head's numbers may be rotated.
        rotation_by_layer_type: Whether layers with and without a window have rotations of their own.
    """

    architecture: str
    numbers: tuple[str, ...] = ()
    values: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    window: Literal["none", "every layer", "sliding layers"] = "none"
    skips_rotation: bool = False
    rotations: tuple[str, ...] = EVERYWHERE
    partial_rotation: bool = False
    rotation_by_layer_type: bool = False


SWITCHED_WINDOW = {"use_sliding_window": (None, False, True)}
MULTIPLIERS = ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling")
CAPS = ("query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping")
GELU: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu_pytorch_tanh",),
    "hidden_activation": (None, "gelu_pytorch_tanh"),
}
GEMMA_GELU = {**GELU, "hidden_act": ("gelu_pytorch_tanh", "gelu")}  # the library reads both as the first

PROVEN_FORMS = {
    "llama": ProvenForm("LlamaForCausalLM"),
    "mistral": ProvenForm("MistralForCausalLM", window="every layer"),
    "qwen2": ProvenForm("Qwen2ForCausalLM", values=SWITCHED_WINDOW, window="sliding layers"),
    "qwen3": ProvenForm("Qwen3ForCausalLM", values=SWITCHED_WINDOW, needed=("head_dim",), window="sliding layers"),
    "smollm3": ProvenForm("SmolLM3ForCausalLM", values=SWITCHED_WINDOW, window="sliding layers", skips_rotation=True),
    "granite": ProvenForm("GraniteForCausalLM", numbers=MULTIPLIERS),
    "gemma": ProvenForm("GemmaForCausalLM", values=GEMMA_GELU, needed=("head_dim",)),
    "gemma2": ProvenForm("Gemma2ForCausalLM", numbers=CAPS, values=GELU, needed=("head_dim",), window="sliding layers"),
    "gemma3_text": ProvenForm(
        "Gemma3ForCausalLM",
        numbers=("query_pre_attn_scalar", "final_logit_softcapping"),
        values=GELU,
        needed=("head_dim",),
        window="sliding layers",
        rotations=("default", "linear"),
        rotation_by_layer_type=True,
    ),
    "olmo2": ProvenForm("Olmo2ForCausalLM"),
    "phi3": ProvenForm(
        "Phi3ForCausalLM", window="every layer", rotations=("default", "longrope"), partial_rotation=True
    ),
}
"""By ``model_type``."""

QUANTISED = "weights are packed here, while they are read: take the unquantised folder and set quantization"
NORMS = "norms on queries and keys are proven where an architecture always has them"
MULTIPLIER = "multipliers are proven for Granite"
CAP = "soft-capping is proven for Gemma-2"
WINDOW = "this window is not proven"
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
    "no_rope_layers": ((None, []), ALL_OF_A_HEAD),
    "no_rope_layer_interval": ((None, 0), ALL_OF_A_HEAD),
    "partial_rotary_factor": ((None, 1), ALL_OF_A_HEAD),
    "rotary_pct": ((None, 1), ALL_OF_A_HEAD),
    "rope_interleaved": (OFF, ALL_OF_A_HEAD),
    "alibi": (OFF, ALL_OF_A_HEAD),
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

NO_ROTATION = ("no_rope_layers", "no_rope_layer_interval")


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
    for key in form.needed:
        if config.get(key) is None:
            raise bad_key(path, key, "this key is missing", "a number", f"{form.architecture} has a default of its own")
    for key in form.numbers:
        if config.get(key) is not None:
            real_number(config, key, path, MOST_WIDTH)
    for key, accepted in form.values.items():
        one_of(config, key, path, accepted, f"{form.architecture} is proven with this alone")
    own = (*form.numbers, *form.values, *NO_ROTATION, *(("partial_rotary_factor",) if form.partial_rotation else ()))
    check_values(config, path, tuple(key for key in VALUES if key not in own))
    check_sizes(config, path)
    check_rotation(
        config, path, form.rotations, is_partial=form.partial_rotation, by_layer_type=form.rotation_by_layer_type
    )
    check_layers_without_rotation(config, path, form)
    check_window(config, path, form)


def check_window(config: Mapping[str, Any], path: Path, form: ProvenForm) -> None:
    """Looks whether a window is a number, and stands where the architecture has one.

    Raises:
        BadInputError: If not, or if it hides positions that the library lets be seen.
    """
    if config.get("sliding_window") is not None:
        if form.window == "none":
            positions = config["max_position_embeddings"]
            if not is_real(config["sliding_window"]) or config["sliding_window"] < positions:
                what = f"{shown_value(config['sliding_window'])} is shorter than the {positions} positions"
                raise bad_key(path, "sliding_window", what, "null", WINDOW)
        else:
            whole_number(config, "sliding_window", path, MOST_POSITIONS)
    elif "sliding_window" in config and form.window == "sliding layers" and "use_sliding_window" not in form.values:
        raise bad_key(path, "sliding_window", "null: its sliding layers have no window", "a number of positions")
    layers, types = config["num_hidden_layers"], config.get("layer_types")
    slides = form.window == "sliding layers" and config.get(
        "use_sliding_window", "use_sliding_window" not in form.values
    )
    known = ["full_attention"] + ["sliding_attention"] * bool(slides)
    if types is not None and not (
        isinstance(types, list) and len(types) == layers and all(each in known for each in types)
    ):
        raise bad_key(
            path, "layer_types", f"{shown_value(types)} is not supported", f"{' or '.join(known)} a layer", WINDOW
        )


def check_layers_without_rotation(config: Mapping[str, Any], path: Path, form: ProvenForm) -> None:
    """Looks whether layers without rotation are named as the architecture names them.

    Raises:
        BadInputError: If it has none, or the list does not fit the layers.
    """
    if not form.skips_rotation:
        check_values(config, path, NO_ROTATION)
        return
    whole_number(config, "no_rope_layer_interval", path, MOST_LAYERS, default=4)
    layers = config.get("no_rope_layers")
    rotated = isinstance(layers, list) and all(type(each) is int and each in (0, 1) for each in layers)
    if layers is not None and not (rotated and len(layers) == config["num_hidden_layers"]):
        raise bad_key(path, "no_rope_layers", f"{shown_value(layers)} does not fit", "0 or 1 a layer")


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
