"""The models that can be taken as a base, as the code itself knows them: what ``m2pt models list`` and the page say."""

from dataclasses import dataclass

from lightning_m2pt.backbones.families.family import Family
from lightning_m2pt.backbones.families.known import FAMILIES
from lightning_m2pt.backbones.proven_forms import PROVEN_FORMS, ProvenForm
from lightning_m2pt.backbones.towers.known import OF_TRANSFORMERS, REFUSED
from lightning_m2pt.backbones.towers.of_open_clip import OpenClipTower
from lightning_m2pt.backbones.towers.of_timm import TimmTower
from lightning_m2pt.backbones.towers.of_transformers import TransformersTower

WINDOWS = {"none": "", "every layer": "a window in every layer", "sliding layers": "a window in some layers"}


@dataclass(frozen=True)
class KnownModel:
    """A family or architecture.

    Attributes:
        name: The class that ``config.json`` names.
        kind: Its ``model_type``.
        parts: Its towers, or what it may have that Llama has not.
        refused: What of it is refused, and why.
    """

    name: str
    kind: str
    parts: str
    refused: str


def whole_models() -> list[KnownModel]:
    """Returns the families of whole vision-language models."""
    return [
        KnownModel(name, family.model_type, " or ".join(family.towers), refused_prompts(family))
        for name, family in FAMILIES.items()
    ]


def refused_prompts(family: Family) -> str:
    """Returns which visual prompt rows are refused, and why."""
    if family.visual_prompts_refused:
        return f"visual prompts: {family.visual_prompts_refused}"
    return f"raw prompt rows to the decoder: {family.raw_rows_refused}" if family.raw_rows_refused else ""


def rows_of(tower: type[TransformersTower]) -> str:
    """Returns the names of a tower's rows."""
    return "CLS, " * bool(tower.front_rows) + "registers, " * tower.has_registers + "patches"


def towers() -> list[KnownModel]:
    """Returns the towers that a language model can be paired with, and those that one might expect and that are not."""
    by_class: dict[type[TransformersTower], list[str]] = {}
    for kind, of_kind in OF_TRANSFORMERS.items():
        by_class.setdefault(of_kind, []).append(kind)
    known = [
        KnownModel(" or ".join(kinds), kinds[0], rows_of(tower), as_keys(tower.prefix_refused))
        for tower, kinds in by_class.items()
    ]
    known += [
        KnownModel("vision transformers of open_clip", "", "CLS, patches", OpenClipTower.prefix_refused),
        KnownModel("vision transformers of timm", "", "as their configuration says", as_keys(TimmTower.prefix_refused)),
    ]
    return known + [KnownModel(kind, kind, "", f"all of it: {why}") for kind, why in REFUSED.items()]


def as_keys(why: str) -> str:
    """Returns that prompts cannot be keys and values, if there is a reason why."""
    return f"prompts as keys and values: {why}" if why else ""


def language_models() -> list[KnownModel]:
    """Returns the language models that a tower can be paired with, and that whole models may have inside."""
    return [
        KnownModel(form.architecture, kind, beyond_llama(form), refused_rotations(form))
        for kind, form in PROVEN_FORMS.items()
    ]


def beyond_llama(form: ProvenForm) -> str:
    """Returns what an architecture may have that Llama has not, in words."""
    words = [
        WINDOWS[form.window],
        "layers without rotation" if form.skips_rotation else "",
        "part of a head rotated" if form.partial_rotation else "",
        "rotations by type of layer" if form.rotation_by_layer_type else "",
        "multipliers" if "residual_multiplier" in form.numbers else "",
        "soft caps" if "final_logit_softcapping" in form.numbers else "",
    ]
    return ", ".join(word for word in words if word)


def refused_rotations(form: ProvenForm) -> str:
    """Returns which of the rotations that other architectures are proven with are refused here."""
    known = dict.fromkeys(kind for each in PROVEN_FORMS.values() for kind in each.rotations)
    refused = [kind for kind in known if kind not in form.rotations]
    return f"rotations {', '.join(refused)}: not proven" if refused else ""
