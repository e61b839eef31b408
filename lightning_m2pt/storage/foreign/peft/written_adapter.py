"""A tuned model as a folder that PEFT loads: configuration, tensors, and what PEFT has no place for beside them."""

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.lora import VISION, Lora
from lightning_m2pt.methods.m2pt import LM_HEAD, M2PT, TEXTUAL_PROMPTS, VISUAL_PROMPTS
from lightning_m2pt.methods.peft_tuner import PeftTuner
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.prompts.decoder_pass import append_rows, prompt_rows
from lightning_m2pt.prompts.key_value_prefix import learned_prefix
from lightning_m2pt.prompts.past_rows import PastRows, no_rows
from lightning_m2pt.storage.adapter_folder import TENSOR_FILE as OUR_TENSORS
from lightning_m2pt.storage.adapter_folder import check_adapter, load_adapter, read_tensors
from lightning_m2pt.storage.foreign.library_names import (
    OUR_PROJECTOR,
    Extent,
    connector_name,
    library_model_on_meta,
    module_in_library,
    place_of,
)
from lightning_m2pt.storage.foreign.llava.described import FIRST_OF_CONNECTOR, HEAD, SECOND_OF_CONNECTOR
from lightning_m2pt.storage.foreign.merged_tensors import MERGEABLE, members_of, refuse_not_finite
from lightning_m2pt.storage.foreign.peft.card import peft_card
from lightning_m2pt.storage.foreign.peft.carried import Plan, planned
from lightning_m2pt.storage.foreign.peft.names import (
    BEGINNING,
    CONFIG_FILE,
    LENGTHS,
    LN_TUNING,
    LORA,
    LORA_A,
    LORA_B,
    PREFIX_TUNING,
    PROMPT_BEGINNING,
    PROMPT_EMBEDDINGS,
    PROMPT_TUNING,
    TENSOR_FILE,
)
from lightning_m2pt.storage.foreign.written import FORMAT, new_folder

VISUAL_FILE, PROJECTOR_FILE = "visual_prompts.safetensors", "projector.safetensors"
"""Files beside the adapter, which PEFT does not read."""
LN_LAYERS = ".ln_tuning_layers"
"""Stands behind a norm's name in PEFT's tensors."""
PROMPTS = (PREFIX_TUNING, PROMPT_TUNING)


def export_peft(
    adapter: Path,
    method: Method,
    backbone: Backbone,
    output: Path,
    left_out: AbstractSet[str] = frozenset(),
    extent: Extent = "whole",
    *,
    as_prefix: bool = False,
) -> list[Path]:
    """Writes a folder for PEFT.

    Args:
        adapter: The adapter's folder.
        method: Its method, not built.
        backbone: Its base, not loaded; it is loaded where keys and values have to be computed.
        output: The folder that is made.
        left_out: Parts that do not go into it.
        extent: The model that PEFT shall put it into.
        as_prefix: Whether a shallow prompt shall be a prefix.

    Returns:
        Its files.

    Raises:
        BadInputError: If something has no form that carries it, adapter and base do not belong together, or something
            stands there; nothing has been written.
        EnvironmentFailure: If it cannot be written.
    """
    plan = planned(method, backbone, left_out, extent, as_prefix=as_prefix)
    check_adapter(adapter, method, backbone.fingerprint(), backbone.former_fingerprint(), backbone.quantization)
    backbone.check_files()
    trained = read_tensors(adapter / OUR_TENSORS)
    refuse_not_finite(trained)
    with new_folder(output) as draft:
        if plan.peft_type == PREFIX_TUNING:
            backbone.load()
            method.build(backbone, torch.Generator())
            load_adapter(adapter, method)
            method.eval()
            method.attach(backbone, left_out)
        config, tensors = adapter_content(plan, backbone, trained)
        modules, beside = module_content(plan, backbone, trained)
        if VISUAL_PROMPTS in left_out:
            beside[VISUAL_FILE] = visual_content(method, trained)
        known = library_model_on_meta(backbone, extent)
        for name in [*config.get("target_modules", ()), *modules]:
            known.get_submodule(name)
        config = {**said_of_base(backbone, extent), **config, "modules_to_save": list(modules) or None}
        beginning = PROMPT_BEGINNING if plan.peft_type in PROMPTS else BEGINNING
        for module, own in modules.items():
            tensors |= {f"{beginning}{module}.{name}": tensor for name, tensor in own.items()}
        facts = {
            "base_fingerprint": backbone.fingerprint(),
            "written_by": f"lightning_m2pt {version('lightning-m2pt')}",
        }
        write_tensors(draft / TENSOR_FILE, tensors, facts)
        for name, own in beside.items():
            write_tensors(draft / name, own, facts)
        (draft / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
        (draft / "README.md").write_text(peft_card(adapter, method, backbone, plan, left_out, sorted(beside)))
    if backbone.attached_method is not None:
        method.detach(backbone)
    return sorted(output.iterdir())


def adapter_content(
    plan: Plan, backbone: Backbone, trained: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns an adapter's own keys of PEFT's configuration, and its tensors by PEFT's names."""
    if plan.peft_type in (LORA, LN_TUNING):
        return tuner_content(plan, backbone, trained)
    shape = backbone.shape
    common = {"num_layers": shape.text_layers, "num_transformer_submodules": 1}
    if plan.peft_type == PROMPT_TUNING:
        rows = trained[f"{plan.beginning}{TEXTUAL_PROMPTS}.rows.0"][0]
        heads, width = shape.text_heads, shape.text_width
        more: dict[str, Any] = {"prompt_tuning_init": "RANDOM"}
    else:
        with torch.no_grad():
            rows = flattened(keys_and_values(plan.member, backbone))
        heads, width = shape.text_key_value_heads, shape.text_key_value_heads * shape.text_head_width
        more = {"prefix_projection": False, "encoder_hidden_size": width}
    numbers = {"num_virtual_tokens": len(rows), "token_dim": width, "num_attention_heads": heads}
    return {"peft_type": plan.peft_type, **numbers, **common, **more}, {PROMPT_EMBEDDINGS: rows}


def keys_and_values(member: Method, backbone: Backbone) -> PastRows:
    """Returns what stands in front of all rows in every layer, by this project's own passes; it is attached."""
    decoder = backbone.decoder()
    if isinstance(member, PrefixTuning):
        assert member.prefix is not None
        return learned_prefix(decoder, member.prefix)
    assert isinstance(member, M2PT)
    assert member.textual_prompts is not None
    rows = member.textual_prompts.layer_rows()
    if member.textual_prompts.is_complete:
        return prompt_rows(decoder, rows)
    weight = backbone.token_embedding().weight
    assert rows[0] is not None
    first = rows[0].to(weight.dtype)
    positions = torch.arange(first.shape[1], device=weight.device)[None]
    # Some models scale what goes into their layers, and prompt rows stand behind that.
    handle = decoder.layers[0].register_forward_pre_hook(lambda _block, given: (first, *given[1:]))
    try:
        return append_rows(decoder, no_rows(weight.device), first, positions)[1]
    finally:
        handle.remove()


def flattened(past: PastRows) -> Tensor:
    """Returns keys and values as PEFT keeps them: (P, 2 L H_kv D_head), by layer keys before values."""
    pairs = torch.stack([torch.stack([keys[0], values[0]]) for keys, values in past.layers])
    return pairs.permute(3, 0, 1, 2, 4).flatten(1).cpu()


def tuner_content(
    plan: Plan, backbone: Backbone, trained: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the same of what stands inside the model: low-rank updates, or norms."""
    places: dict[str, str] = {}
    within: dict[str, tuple[str, str]] = {}
    tensors: dict[str, Tensor] = {}
    for part in plan.parts:
        start = f"{plan.beginning}{part}."
        for name in (each for each in trained if each.startswith(start)):
            inside = name.removeprefix(start)
            known = (LORA_A, LORA_B, f"{LENGTHS}.weight")
            ending = next((each for each in known if inside.endswith(each)), f".{inside.rpartition('.')[2]}")
            place = inside = inside.removesuffix(ending)
            if inside != OUR_PROJECTOR:
                place = place_of(backbone, component_of(part), inside)
            module = module_in_library(backbone, place, plan.extent)
            if module is None:
                raise RuntimeError(f"{place} has no name in the library's model")
            places[module], within[module] = place, (part, inside)
            own = ending.replace(f"{LENGTHS}.weight", LENGTHS) if plan.peft_type == LORA else f"{LN_LAYERS}{ending}"
            tensors[f"{BEGINNING}{module}{own}"] = trained[name]
    config: dict[str, Any] = {"peft_type": plan.peft_type, "target_modules": sorted(places)}
    if isinstance(plan.member, Lora):
        config |= scales(plan.member, places)
    elif isinstance(plan.member, PeftTuner):
        config |= scales_of_tuner(plan.member, within, tensors)
    return config, tensors


def component_of(part: str) -> Literal["vision", "language"]:
    """Returns the component that a part inside the model is in; LoRA's factors may be parts by themselves."""
    return "vision" if part.startswith(VISION) else MERGEABLE.get(part, "language")


def scales_of_tuner(
    member: PeftTuner, within: Mapping[str, tuple[str, str]], tensors: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Returns what PEFT's configuration says of LoRA's ranks, alphas, scale and start.

    Args:
        member: The method.
        within: The part of each wrapped layer and its name there, by its name in the library's model.
        tensors: The tensors by PEFT's names.
    """
    ranks = {module: len(tensors[f"{BEGINNING}{module}{LORA_A}"]) for module in within}
    alphas = {module: member.alpha_of(part, name) for module, (part, name) in within.items()}
    written = {part for part, _ in within.values()}
    own = next(own for component, own in member.settings.items() if written & set(member.parts_of(component)))
    return {
        "r": own["r"],
        "lora_alpha": own["lora_alpha"],
        "rank_pattern": {module: rank for module, rank in ranks.items() if rank != own["r"]},
        "alpha_pattern": {module: alpha for module, alpha in alphas.items() if alpha != own["lora_alpha"]},
        **{key: own[key] for key in ("use_rslora", "use_dora", "init_lora_weights")},
        "lora_dropout": 0.0,
        "bias": "none",
    }


def scales(member: Lora, places: Mapping[str, str]) -> dict[str, Any]:
    """Returns what PEFT's configuration says of ranks and alphas.

    Args:
        member: The method.
        places: The name in the backbone of each wrapped layer, by its name in the library's model.
    """
    ranks = {module: member.rank_of(place) for module, place in places.items()}
    alphas = {module: member.alpha_of(place) for module, place in places.items()}
    return {
        "r": member.rank,
        "lora_alpha": member.alpha,
        "rank_pattern": {module: rank for module, rank in ranks.items() if rank != member.rank},
        "alpha_pattern": {module: alpha for module, alpha in alphas.items() if alpha != member.alpha},
        "lora_dropout": 0.0,
        "bias": "none",
    }


def module_content(
    plan: Plan, backbone: Backbone, trained: Mapping[str, Tensor]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, dict[str, Tensor]]]:
    """Returns tensors of whole modules by the library's name of each, and those of files beside the adapter."""
    modules: dict[str, dict[str, Tensor]] = {}
    beside: dict[str, dict[str, Tensor]] = {}
    for part, beginning in plan.modules.items():
        start = f"{beginning}{part}."
        own = {name.removeprefix(start): one for name, one in trained.items() if name.startswith(start)}
        if part == LM_HEAD:
            modules[HEAD] = own
        elif plan.extent == "language":
            beside[PROJECTOR_FILE] = own
        elif isinstance(backbone, VisionLanguageModel):
            modules[connector_name(backbone)] = own
        else:
            modules[connector_name(backbone)] = as_two_layers(own)
    return modules, beside


def as_two_layers(linear: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns one linear layer as the two of a LLaVA's connector, the second of which changes nothing."""
    first, second = (name.rpartition(".")[2] for name in (FIRST_OF_CONNECTOR, SECOND_OF_CONNECTOR))
    bias = linear["bias"]
    return {
        **{f"{first}.{name}": tensor for name, tensor in linear.items()},
        f"{second}.weight": torch.eye(len(bias), dtype=bias.dtype),
        f"{second}.bias": torch.zeros_like(bias),
    }


def visual_content(method: Method, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns prompt rows of the vision tower, (1, P, D) by ``rows.LAYER``."""
    starts = [f"{beginning}{VISUAL_PROMPTS}." for beginning in members_of(method)]
    return {
        name.removeprefix(start): one for start in starts for name, one in trained.items() if name.startswith(start)
    }


def said_of_base(backbone: Backbone, extent: Extent) -> dict[str, Any]:
    """Returns what PEFT's configuration says of the base: its repository where it has one, and never a local path."""
    origin = backbone.origin()
    place = origin.arguments.get("model" if extent == "whole" else "language_model")
    known = place if origin.kind == "hub" and isinstance(place, dict) else {}
    return {
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": known.get("repository"),
        "revision": known.get("commit"),
        "inference_mode": True,
    }


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Writes a safetensors file; its header says what it was made of."""
    from safetensors.torch import save

    path.write_bytes(save({name: one.contiguous() for name, one in tensors.items()}, {**FORMAT, **facts}))
