"""The families there are, by the architecture that a configuration names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_m2pt.backbones.config_values import bad_key, shown_value
from lightning_m2pt.backbones.families.family import Family
from lightning_m2pt.backbones.families.idefics3 import Idefics3, SmolVLM
from lightning_m2pt.backbones.families.llava import Llava
from lightning_m2pt.backbones.families.llava_next import LlavaNext
from lightning_m2pt.backbones.families.llava_onevision import LlavaOnevision
from lightning_m2pt.backbones.families.qwen2_5_vl import Qwen25Vl

KNOWN: tuple[Family, ...] = (Llava(), LlavaNext(), LlavaOnevision(), Idefics3(), SmolVLM(), Qwen25Vl())
FAMILIES = {family.architecture: family for family in KNOWN}


def family_of(content: Mapping[str, Any], path: Path) -> Family:
    """Returns the family of a whole model's configuration.

    Args:
        content: Its ``config.json``.
        path: The file, for messages.

    Raises:
        BadInputError: If it names no known one, or another ``model_type`` than that one's.
    """
    named = content.get("architectures")
    known = " or ".join(FAMILIES)
    family = FAMILIES.get(named[0]) if isinstance(named, list) and len(named) == 1 and named[0] in FAMILIES else None
    if family is None:
        what = "this key is missing" if "architectures" not in content else f"{shown_value(named)} is not proven"
        raise bad_key(path, "architectures", what, known, "other whole models would train and answer wrongly")
    kind = content.get("model_type")
    if kind != family.model_type:
        raise bad_key(path, "model_type", f"{shown_value(kind)} is not {family.architecture}'s", family.model_type)
    return family
