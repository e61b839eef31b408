"""Which of PEFT's forms carries which part of a tuned model, and what none of them does; needs no weights.

PEFT keeps one kind of adapter in a folder, and beside it copies of whole modules (``modules_to_save``). A deep textual
prompt meets other rows as keys and values alone, which depend on nothing but the prompt: PEFT's prefix, number for
number. Rows in front of the first token that flow through all layers are PEFT's prompt.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods import layer_norm, lora, m2pt
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.peft_settings import LORA as LORA_OF_PEFT
from lightning_m2pt.methods.peft_tuner import PeftTuner
from lightning_m2pt.methods.prefix_tuning import PREFIX, PrefixTuning
from lightning_m2pt.methods.with_interaction import INTERACTION, WithInteraction
from lightning_m2pt.prompts.deep import choose_layers
from lightning_m2pt.storage.foreign.library_names import Extent, library_model_on_meta, refuse_other_extent
from lightning_m2pt.storage.foreign.merged_tensors import members_of, refuse_unknown_parts
from lightning_m2pt.storage.foreign.peft.names import LN_TUNING, LORA, PREFIX_TUNING, PROMPT_TUNING

PeftType: TypeAlias = Literal["LORA", "LN_TUNING", "PREFIX_TUNING", "PROMPT_TUNING"]
OF_PARTS: dict[type[Method], dict[str, str]] = {
    lora.Lora: dict.fromkeys((lora.LANGUAGE, lora.VISION, lora.PROJECTOR), LORA),
    layer_norm.LayerNormTuning: dict.fromkeys((layer_norm.LANGUAGE_NORMS, layer_norm.VISION_NORMS), LN_TUNING),
    PrefixTuning: {PREFIX: PREFIX_TUNING},
    m2pt.M2PT: {m2pt.TEXTUAL_PROMPTS: PREFIX_TUNING},
}
"""PEFT's form of each method's parts; a shallow prompt has another one."""
WHOLE_MODULES = (INTERACTION, m2pt.LM_HEAD)
"""Parts that stand in for a module of the base."""
BESIDE_LANGUAGE = (lora.VISION, layer_norm.VISION_NORMS, lora.PROJECTOR)
"""Parts of what a language model alone does not have."""
REASONS = {
    m2pt.VISUAL_PROMPTS: "PEFT has no prompts of a vision tower",
    "query_prompts": "PEFT has no learned queries",
    "language": "it is a model by itself",
    "vision": "it is a model by itself",
}
DECODERS = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "granite", "gemma", "olmo2", "phi3")
"""Types of language models with which PEFT's prefix is known to compute what ours does."""
SCALED = ("granite",)
"""Those that multiply whatever stands in front of their first layer: rows that PEFT puts there would be other rows."""
FAMILIES = ("llava",)
"""Types of whole models with which PEFT's prefixes and prompts are known to."""
BY_LENGTH = ("dynamic", "longrope")
"""Rotations that depend on the length of a text: keys that were rotated once would be another text's."""


@dataclass(frozen=True)
class Plan:
    """What goes into a folder.

    Attributes:
        peft_type: The adapter's.
        member: The method whose parts it holds.
        beginning: What the names of its tensors begin with.
        parts: The parts that are the adapter.
        modules: The parts that are whole modules: method by part.
        extent: The model that PEFT puts it into.
    """

    peft_type: str
    member: Method
    beginning: str
    parts: tuple[str, ...]
    modules: Mapping[str, str]
    extent: Extent


def planned(
    method: Method, backbone: Backbone, left_out: AbstractSet[str], extent: Extent, *, as_prefix: bool = False
) -> Plan:
    """Returns what goes into a folder.

    Args:
        method: Not built.
        backbone: Not loaded.
        left_out: Parts that do not go into it.
        extent: The model that PEFT shall put it into.
        as_prefix: Whether a shallow prompt shall be a prefix.

    Raises:
        BadInputError: If something has no form that carries it, naming it; nothing has been written.
    """
    refuse_unknown_parts(method, left_out)
    refuse_other_extent(backbone, extent)
    if backbone.quantization is not None:
        raise BadInputError(
            f"tuned on weights that are packed here ({backbone.quantization})",
            where="model.backbone.quantization",
            expected="a base in its own type: nobody else's packing has these numbers",
        )
    forms: dict[str, tuple[str, Method, list[str]]] = {}
    modules: dict[str, str] = {}
    for beginning, member in members_of(method).items():
        for part in member.part_names():
            if part in left_out:
                continue
            if part in WHOLE_MODULES and isinstance(member, WithInteraction):
                modules[part] = beginning
                continue
            form = form_of(member, part)
            if form is None or (is_beside_language(part) and extent == "language"):
                refuse_part(member, part, extent)
            if part == m2pt.TEXTUAL_PROMPTS and isinstance(member, m2pt.M2PT):
                form = form_of_prompt(member, backbone, as_prefix=as_prefix)
            forms.setdefault(str(form), (beginning, member, []))[2].append(part)
    refuse_other_number(method, forms, modules)
    refuse_half_layers(forms)
    refuse_two_kinds(forms)
    (peft_type, (beginning, member, parts)) = next(iter(forms.items()))
    if peft_type in (PREFIX_TUNING, PROMPT_TUNING):
        refuse_base_for_prompts(backbone, extent, peft_type)
    return Plan(peft_type, member, beginning, tuple(parts), modules, extent)


def form_of(member: Method, part: str) -> str | None:
    """Returns PEFT's form of a part, if it has one."""
    if isinstance(member, PeftTuner):
        return LORA if member.tuner == LORA_OF_PEFT else None
    return OF_PARTS.get(type(member), {}).get(part)


def is_beside_language(part: str) -> bool:
    """Tells whether a language model alone does not have what a part changes."""
    return part.startswith(BESIDE_LANGUAGE)


def refuse_part(member: Method, part: str, extent: Extent) -> None:
    """Refuses a part that no form carries.

    Raises:
        BadInputError: Always.
    """
    reason = REASONS.get(part, f"PEFT has no form for {member.name}")
    if isinstance(member, PeftTuner):
        reason = f"of PEFT's tuners LoRA is written, and this is {member.tuner}"
    if is_beside_language(part) and extent == "language":
        reason = "a language model alone has no vision tower and no projector"
    raise BadInputError(
        f"{part} of {member.name} is not carried: {reason}",
        where="model.method",
        expected=f"textual prompts, prefixes, low-rank updates, norms, projector, head; or --leave-out {part}",
        hint="m2pt merge puts it into weights" if part in ("language", "vision") else "",
    )


def refuse_other_number(method: Method, forms: Mapping[str, Any], modules: Mapping[str, str]) -> None:
    """Refuses none and several of PEFT's forms: a folder has one.

    Raises:
        BadInputError: If it is not one.
    """
    if len(forms) > 1:
        parts = [part for _, _, each in forms.values() for part in each]
        raise BadInputError(
            f"{' and '.join(parts)} are {' and '.join(forms)}, and one folder of PEFT has one of them",
            where="model.method",
            expected=f"--leave-out {parts[0]}, or --leave-out {parts[-1]}",
        )
    if not forms:
        raise BadInputError(
            f"of {method.name} {' and '.join(modules) or 'nothing'} is left, which is no adapter of PEFT by itself",
            where="model.method",
            expected="prompts, a prefix, low-rank updates or norms beside it",
            hint="m2pt merge puts a projector and a head into the base",
        )


def refuse_half_layers(forms: Mapping[str, tuple[str, Method, list[str]]]) -> None:
    """Refuses a tuner of PEFT of whose layers some factors are left out: knocked out, a layer is so as a whole.

    Raises:
        BadInputError: Naming what is left of such layers.
    """
    for _, member, parts in forms.values():
        if not isinstance(member, PeftTuner):
            continue
        for component in member.settings:
            whole = member.parts_of(component)
            kept = [part for part in whole if part in parts]
            if 0 < len(kept) < len(whole):
                raise BadInputError(
                    f"of the {component} layers of {member.name} {' and '.join(kept)} would be left without the rest",
                    where="--leave-out",
                    expected="all of " + " ".join(f"--leave-out {part}" for part in whole),
                )


def refuse_two_kinds(forms: Mapping[str, tuple[str, Method, list[str]]]) -> None:
    """Refuses a tuner of PEFT whose settings differ between tower and language model where a folder has one of each.

    Raises:
        BadInputError: Naming the first such setting.
    """
    for _, member, parts in forms.values():
        own = list(member.settings.values()) if isinstance(member, PeftTuner) else []
        if len(own) < 2 or len({part.startswith(BESIDE_LANGUAGE) for part in parts}) < 2:
            continue
        for key in ("use_rslora", "use_dora", "init_lora_weights"):
            if own[0][key] != own[1][key]:
                raise BadInputError(
                    f"{key} is {own[0][key]} in settings and {own[1][key]} in vision: a folder of PEFT has one",
                    where="model.method",
                    expected=" ".join(f"--leave-out {part}" for part in parts if is_beside_language(part)),
                )


def form_of_prompt(member: m2pt.M2PT, backbone: Backbone, *, as_prefix: bool) -> str:
    """Returns the form of textual prompts: rows for every layer, or rows in front of the first.

    Raises:
        BadInputError: If they are neither.
    """
    layers = backbone.shape.text_layers
    chosen = choose_layers(member.textual_layers, member.textual_depth, layers, "model.method.textual_layers")
    if chosen == list(range(layers)) and member.textual_depth == "deep":
        return PREFIX_TUNING
    if chosen == [0]:
        return PREFIX_TUNING if as_prefix else PROMPT_TUNING
    raise BadInputError(
        f"textual_prompts stand in layers {', '.join(map(str, chosen))} of {layers}",
        where="model.method.textual_layers",
        expected="rows of their own in every layer (a prefix), or in the first alone (a prompt)",
        hint="--leave-out textual_prompts leaves them out",
    )


def refuse_base_for_prompts(backbone: Backbone, extent: Extent, peft_type: str) -> None:
    """Refuses bases with which PEFT's prefixes and prompts would be others than ours.

    Raises:
        BadInputError: Naming why.
    """
    where, form = "model.backbone", "prefix" if peft_type == PREFIX_TUNING else "prompt"
    if isinstance(backbone, VisionLanguageModel) and backbone.family.model_type not in FAMILIES:
        raise BadInputError(
            f"PEFT's {form} in front of {backbone.family.architecture} is not known to be ours",
            where=where,
            expected=" or ".join(FAMILIES),
        )
    if backbone.shape.runs_reference:
        raise BadInputError(
            f"{backbone.shape.runs_reference} is run by the library's own forward: no keys of prompts are read off it",
            where=where,
            expected=" or ".join(DECODERS),
        )
    config = library_model_on_meta(backbone, extent).config.get_text_config()
    if config.model_type not in DECODERS:
        raise BadInputError(
            f"PEFT's {form} in front of {config.model_type} is not known to be ours",
            where=where,
            expected=" or ".join(DECODERS),
        )
    if peft_type == PROMPT_TUNING and config.model_type in SCALED:
        raise BadInputError(
            f"{config.model_type} multiplies the rows in front of its first layer, and would multiply PEFT's prompt",
            where=where,
            expected="--as-prefix, which writes the keys and values of these rows",
        )
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    if window is not None and slides and window < config.max_position_embeddings:
        raise BadInputError(
            f"its layers see {window:,} positions back, so that a {form} goes out of sight",
            where=where,
            expected="a base whose layers see everything in front of them",
        )
    rotation = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    if rotation in BY_LENGTH:
        raise BadInputError(
            f"its rotation ({rotation}) depends on the length of a text, and a {form}'s keys are rotated once",
            where=where,
            expected="a rotation that does not change within a text",
        )
