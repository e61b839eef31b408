"""Decoders that no list names: which of them the library's own forward may run, every fast way off.

The reference puts prompt rows into the sequence by hooks on the layers, and reads answers off whole sequences that run
anew for every token. So what a layer computes is the library's affair. What has to hold is little: an installed
architecture of one stack of layers behind each other, of which a row depends on the rows before it alone, and rotations
that no length changes. What can be seen without weights is looked at here, the rest by the test before a model is used.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.config_values import bad_key, equal_json, real_number, shown_value, whole_number
from lightning_m2pt.backbones.decoders.rotations import EVERYWHERE, MOST_POSITIONS
from lightning_m2pt.backbones.foreign_code import INSTALLED_CODE_ONLY
from lightning_m2pt.backbones.proven_forms import PROVEN_FORMS, VALUES, check_language_config, check_sizes, check_values
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.errors import BadInputError

NEVER = (
    *INSTALLED_CODE_ONLY,
    "quantization_config",
    "compression_config",
    "is_causal",
    "use_bidirectional_attention",
    "is_encoder_decoder",
    "add_cross_attention",
    "pruned_heads",
    "fusion_config",
    "distributed_config",
    "gradient_checkpointing",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "torchscript",
    "tie_word_embeddings",
)
"""Keys of ``VALUES`` that hold for every architecture."""
ATTENTION_ALONE = ("full_attention", "sliding_attention")
ROWS = 4
"""Rows of the pass that is looked at, without memory."""


def runs_by_reference(config: Mapping[str, Any]) -> str:
    """Returns the architecture of a checked configuration that the reference runs; empty if it is a proven one."""
    kind = config["model_type"]
    return "" if kind in PROVEN_FORMS else str(kind)


def check_decoder_config(config: Mapping[str, Any], path: Path) -> None:
    """Looks whether a language model's ``config.json`` describes a proven form, or one that the reference can run.

    Args:
        config: Its content.
        path: The file, for messages.

    Raises:
        BadInputError: At the first thing that is wrong or not legal, naming its key.
    """
    check_values(config, path, ("auto_map", "quantization_config", "compression_config"))
    known = known_keys(config)
    if known is None:
        check_language_config(config, path)  # a proven form, or none that is installed
        return
    architecture = installed_decoder(config["model_type"])
    experts = sorted(key for key in known if "expert" in key)
    if experts:
        raise bad_key(
            path, "model_type", f"{shown_value(config['model_type'])} has experts", "a model without", experts[0]
        )
    if config.get("architectures") not in (None, [architecture]):
        what = f"{shown_value(config['architectures'])} is not what {config['model_type']} is"
        raise bad_key(path, "architectures", what, str(architecture))
    check_values(config, path, NEVER)
    for key, (accepted, reason) in VALUES.items():
        if key in config and key not in known and not any(equal_json(config[key], value) for value in accepted):
            what = f"{shown_value(config[key])} is unknown to {architecture}"
            raise bad_key(path, key, what, "no such key", reason)
    check_sizes(config, path)
    if config.get("sliding_window") is not None:
        whole_number(config, "sliding_window", path, MOST_POSITIONS)
    check_kinds_of_layers(config, path)
    check_kinds_of_rotation(config, path)


def notice_of_reference(shape: BackboneShape) -> str:
    """Returns what a user is told of a backbone that the library's own forward runs; empty if it has fast ways."""
    if not shape.runs_reference:
        return ""
    return (
        f"{shape.runs_reference} is no proven form: the library's own forward runs, "
        "a whole sequence for every token of an answer"
    )


def refuse_by_reference(shape: BackboneShape, what: str, where: str = "model.method") -> None:
    """Refuses what needs the fast ways, if a backbone has none.

    Args:
        shape: The backbone's.
        what: What does, as the beginning of a sentence.
        where: The setting that asks for it.

    Raises:
        BadInputError: If the language model is run by the library's own forward.
    """
    if shape.runs_reference:
        raise BadInputError(
            f"{what} do not go with {shape.runs_reference}, which the library's own forward runs",
            where=where,
            expected="prompt rows in the sequence, or a method that changes weights or outputs",
            hint=f"the forms with ways of their own are {', '.join(PROVEN_FORMS)}",
        )


def known_keys(config: Mapping[str, Any]) -> frozenset[str] | None:
    """Returns the keys that an installed architecture reads; None if it is a proven form, or none is installed."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind in PROVEN_FORMS or installed_decoder(kind) is None:
        return None
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    described = CONFIG_MAPPING[kind]
    own = (field.name for field in fields(described)) if is_dataclass(described) else ()
    return frozenset((*own, "partial_rotary_factor"))  # what every rotation of the library reads


def installed_decoder(kind: str) -> str | None:
    """Returns the name of the library's causal language model of this type, if there is one."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    return name if isinstance(name, str) and name.endswith("ForCausalLM") else None


def check_kinds_of_layers(config: Mapping[str, Any], path: Path) -> None:
    """Looks whether all layers are attention, with a window or without.

    Raises:
        BadInputError: If a file names others.
    """
    types = config.get("layer_types")
    if types is not None and not (isinstance(types, list) and all(each in ATTENTION_ALONE for each in types)):
        raise bad_key(path, "layer_types", f"{shown_value(types)} is not supported", " or ".join(ATTENTION_ALONE))


def check_kinds_of_rotation(config: Mapping[str, Any], path: Path) -> None:
    """Looks whether the rotations of positions are of kinds that are known to depend on no length, up to a border.

    Raises:
        BadInputError: If one is not, or its border is no number.
    """
    key = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    said = config.get(key) or {}
    if not isinstance(said, dict):
        raise bad_key(path, key, f"{shown_value(said)} is no JSON object", "a JSON object")
    nested = [each for each in said.values() if isinstance(each, dict)]
    for rotation in nested or [said]:
        kind = rotation.get("rope_type", rotation.get("type", "default"))
        if kind not in EVERYWHERE:
            raise bad_key(path, f"{key}.rope_type", f"{shown_value(kind)} is not supported", " or ".join(EVERYWHERE))
        if kind == "longrope":
            if nested:
                raise bad_key(path, key, "longrope of some layers is not supported", "one rotation of all layers")
            real_number({**config, **rotation}, f"{key}.original_max_position_embeddings", path, MOST_POSITIONS)


def check_decoder_model(model: Any, path: Path) -> None:  # noqa: ANN401  (any causal language model)
    """Looks whether a model without memory is one stack of layers that pass rows on, which hooks can put rows into.

    Args:
        model: Built on the meta device.
        path: Its configuration file, for messages.

    Raises:
        BadInputError: If it is not.
    """
    reason = why_not_legal(model)
    if reason:
        raise BadInputError(
            f"{type(model).__name__} cannot be run by the library's own forward with rows put in: {reason}",
            where=f"{path}: model_type",
            expected=f"a decoder of attention layers alone; fast ones are {', '.join(PROVEN_FORMS)}",
        )


def why_not_legal(model: Any) -> str:  # noqa: ANN401
    """Returns the reason why rows cannot be put into a model's layers; empty if they can."""
    decoder = getattr(model, "model", None)
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or decoder is not model.base_model:
        return "its layers do not stand in model.layers"
    if model._is_stateful or not model._supports_sdpa:
        return "it keeps a state beside keys and values, or has attention functions of its own"
    if any(not hasattr(layer, part) for layer in layers for part in ("self_attn", "mlp")):
        return "its layers are not self_attn and mlp"
    if any(parameter.dim() > 2 for parameter in model.parameters()):  # experts, convolutions
        return "it has tensors of more than two dimensions"
    called: list[tuple[int, bool]] = []
    shape = (1, ROWS, model.get_input_embeddings().weight.shape[1])

    def note(number: int, given: tuple[Any, ...]) -> None:
        called.append((number, bool(given) and isinstance(given[0], Tensor) and given[0].shape == shape))

    handles = [
        layer.register_forward_pre_hook(lambda _layer, given, number=number: note(number, given))
        for number, layer in enumerate(layers)
    ]
    try:
        rows = torch.zeros(shape, device="meta", dtype=model.dtype)
        mask, places = rows.new_zeros(1, 1, ROWS, ROWS), torch.arange(ROWS, device="meta")[None]
        logits = model(inputs_embeds=rows, attention_mask=mask, position_ids=places, use_cache=False).logits
    except Exception as error:  # whatever the library's code meets
        return " ".join(f"a pass ends in {type(error).__name__}: {error}".split())[:200]
    finally:
        for handle in handles:
            handle.remove()
    if called != [(number, True) for number in range(len(layers))]:
        return "its layers are not called once each, one behind the other, with rows"
    return "" if logits.shape[:2] == shape[:2] else "its logits are not those of all rows"
