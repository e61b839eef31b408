"""A tuned method's tensors put into the frozen base's, where what they compute together is a base's again."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Literal

import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods import full, layer_norm, lora, m2pt, pixel_prompting
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.peft_tuner import PeftTuner
from lightning_m2pt.methods.prefix_tuning import PREFIX
from lightning_m2pt.methods.with_interaction import INTERACTION
from lightning_m2pt.storage.foreign.library_names import place_of

MERGEABLE: dict[str, Literal["vision", "language"]] = {
    lora.LANGUAGE: "language",
    lora.VISION: "vision",
    layer_norm.LANGUAGE_NORMS: "language",
    layer_norm.VISION_NORMS: "vision",
    full.LANGUAGE: "language",
    full.VISION: "vision",
}
"""Parts that a base's own tensors can hold, and what they are a part of; the interaction layer and the head are two
more, by other names."""
METHODS = (lora.Lora, layer_norm.LayerNormTuning, full.Full, m2pt.M2PT)
PROMPTS = (m2pt.VISUAL_PROMPTS, m2pt.TEXTUAL_PROMPTS, PREFIX)
"""Rows, or keys and values, that attention has beside its own."""
REASONS = {
    **dict.fromkeys(PROMPTS, "more keys than there are tokens are no weights: softmax over them is not linear"),
    pixel_prompting.PIXEL_PROMPT: "it stands in pictures, before the model",
}
A, B = ".lora_A.weight", ".lora_B.weight"


def members_of(method: Method) -> dict[str, Method]:
    """Returns the methods that a method is, by what their tensors' names begin with."""
    if isinstance(method, Combined):
        return {f"members.{member.name}.": member for member in method.methods()}
    return {"": method}


def refuse_unmergeable(method: Method, left_out: AbstractSet[str]) -> None:
    """Refuses parts that no base's tensors can hold; needs nothing built.

    Raises:
        BadInputError: If ``left_out`` names a part that the method does not have, or others cannot be merged: all of
            them are named.
    """
    refuse_unknown_parts(method, left_out)
    refused: dict[str, list[str]] = {}
    reasons: dict[str, list[str]] = {}
    for member in members_of(method).values():
        parts = [part for part in member.part_names() if part not in left_out and not can_be_merged(member, part)]
        if parts:
            refused[member.name] = parts
        for part in parts:
            of_peft = isinstance(member, PeftTuner)  # its projector is merged as everybody's
            reason = "merging peft's tuners is not tried" if of_peft else REASONS.get(part, "it computes beside them")
            reasons.setdefault(reason, []).append(part)
    if not refused:
        return
    named = "; ".join(f"{', '.join(parts)} of {name}" for name, parts in refused.items())
    # One reason is everybody's; several are told apart.
    told_apart = [f"{', '.join(parts)}: {reason}" for reason, parts in reasons.items()]
    why = "; ".join(told_apart if len(reasons) > 1 else reasons)
    all_parts = [part for parts in refused.values() for part in parts]
    raise BadInputError(
        f"{named} cannot be merged into weights: {why}",
        where="model.method",
        expected="low-rank updates, norms, the projector, the head, or "
        + " ".join(f"--leave-out {part}" for part in dict.fromkeys(all_parts)),
        hint="m2pt export peft writes an adapter for PEFT" if set(all_parts) & set(PROMPTS) else "",
    )


def can_be_merged(member: Method, part: str) -> bool:
    """Tells whether a base's own tensors can hold a method's part."""
    if part in (INTERACTION, lora.PROJECTOR):
        return True
    return isinstance(member, METHODS) and (part in MERGEABLE or part == m2pt.LM_HEAD)


def refuse_unknown_parts(method: Method, left_out: AbstractSet[str]) -> None:
    """Refuses to leave out what a method does not have.

    Raises:
        BadInputError: Naming the first.
    """
    unknown = sorted(set(left_out) - set(method.part_names()))
    if unknown:
        raise BadInputError(
            f"{method.name} has no part {unknown[0]!r:.40}",
            where="command line: --leave-out",
            expected=" or ".join(method.part_names()) or "nothing: this method trains nothing",
        )


def merged_tensors(
    backbone: Backbone, method: Method, trained: Mapping[str, Tensor], left_out: AbstractSet[str]
) -> dict[str, Tensor]:
    """Returns the tensors of a base that change, by their names in it, each of the base's own type.

    Args:
        backbone: Loaded, nothing attached.
        method: Which ``refuse_unmergeable`` lets pass.
        trained: Its tensors, by name.
        left_out: Parts whose pretrained tensors stay.
    """
    changed: dict[str, Tensor] = {}
    for beginning, member in members_of(method).items():
        for part in member.part_names():
            start = f"{beginning}{part}."
            own = {name.removeprefix(start): one for name, one in trained.items() if name.startswith(start)}
            if part not in left_out:
                changed |= merged_part(backbone, member, part, own)
    return changed


def merged_part(backbone: Backbone, member: Method, part: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns what one part changes.

    Args:
        backbone: Loaded.
        member: The method whose part it is.
        part: Its name.
        own: The part's tensors, by their names in it.
    """
    if part in (INTERACTION, m2pt.LM_HEAD):
        module = backbone.projector if part == INTERACTION else backbone.pretrained_lm_head()
        place = next(name for name, one in backbone.named_modules() if one is module)
        return {f"{place}.{name}": in_type(one, module.get_parameter(name)) for name, one in own.items()}
    if isinstance(member, lora.Lora):
        return merged_low_rank(backbone, member, part, own)
    places = {place_of(backbone, MERGEABLE[part], name): one for name, one in own.items()}
    return {
        twin: in_type(one, frozen)
        for place, one in places.items()
        for frozen in [backbone.get_parameter(place)]
        for twin in names_of(backbone, frozen)
    }


def merged_low_rank(backbone: Backbone, member: lora.Lora, part: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights of a part's wrapped layers with their updates in them.

    Args:
        backbone: Loaded, nothing attached.
        member: The method whose part it is.
        part: Its name.
        own: The part's tensors, by their names in it.
    """
    changed = {}
    for place in lora.linear_layers(backbone, lora.COMPONENTS[part]):
        wrapped = lora.name_in_part(place)
        if f"{wrapped}{A}" in own:
            frozen, scale = backbone.get_parameter(f"{place}.weight"), member.alpha_of(place) / member.rank_of(place)
            update = own[f"{wrapped}{B}"].double() @ own[f"{wrapped}{A}"].double() * scale
            changed[f"{place}.weight"] = in_type(frozen.detach().double() + update, frozen)
    return changed


def names_of(backbone: Backbone, parameter: Tensor) -> list[str]:
    """Returns every name of a parameter: a head that is tied to the word embeddings has two."""
    return [name for name, one in backbone.named_parameters(remove_duplicate=False) if one is parameter]


def in_type(tensor: Tensor, like: Tensor) -> Tensor:
    """Returns a tensor in another's type, on the CPU."""
    return tensor.detach().to("cpu", like.dtype)


def refuse_not_finite(tensors: Mapping[str, Tensor]) -> None:
    """Refuses what a base's type is too narrow for.

    Raises:
        BadInputError: Naming the first tensor.
    """
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BadInputError(
                f"{name} does not fit into {tensor.dtype}",
                where="model.backbone.dtype",
                expected="a type that holds the merged numbers",
            )
