"""PEFT's tuning of norms as ``LayerNormTuning``, which trains all norms of a tower, or none."""

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.layer_norm import LANGUAGE_NORMS, VISION_NORMS, LayerNormTuning, norms_of
from lightning_m2pt.storage.foreign.peft.module_names import is_vision, numbered
from lightning_m2pt.storage.foreign.peft.names import BEGINNING, LN_LAYERS
from lightning_m2pt.storage.foreign.peft.reading import PeftFolder
from lightning_m2pt.storage.foreign.peft.translation import Translation, interaction_sources
from lightning_m2pt.visible_text import counted

KNOWN = ("exclude_modules", "target_modules")
COMPONENTS = {LANGUAGE_NORMS: "language", VISION_NORMS: "vision"}
LAST = ("norm", "final_layernorm")
"""What decoders call the norm behind their layers."""


def translated_norms(peft: PeftFolder, backbone: Backbone) -> Translation:
    """Returns an adapter of norms in this project's words.

    Args:
        peft: The folder.
        backbone: The base, built.

    Raises:
        BadInputError: If something else was trained, or some norms of a tower were and others were not.
    """
    peft.refuse_unknown_keys(KNOWN, {})
    places: dict[str, dict[str, str]] = {}
    for part, component in COMPONENTS.items():
        places[part] = {}
        for place, norm in norms_of(backbone, component).items():
            for name, _ in norm.named_parameters():
                places[part][f"{key_of(place)}.{name}"] = f"{part}.{place.partition('.')[2]}.{name}"
    sources: dict[str, str] = {}
    others: dict[str, str] = {}
    for stored in peft.stored:
        name = stored.removeprefix(BEGINNING)
        module, tuned, tensor = name.rpartition(f"{LN_LAYERS}.")
        if not tuned:
            others[name] = stored
            continue
        own = places[VISION_NORMS if is_vision(module) else LANGUAGE_NORMS].get(f"{key_of(module)}.{tensor}")
        if own is None or own in sources:
            raise BadInputError(
                f"it tunes {counted([module])}, which is no norm of its own in this base that anything depends on",
                where=str(peft.tensor_file),
                expected="norms of the language model or the tower",
            )
        sources[own] = stored
    interaction = interaction_sources(peft, others, backbone)
    parts = {name.partition(".")[0] for name in sources}
    missing = [own for part in parts for own in places[part].values() if own not in sources]
    if missing or not parts:
        raise BadInputError(
            f"of the norms {counted(missing)} were not tuned" if missing else "it tunes no norm",
            where=str(peft.tensor_file),
            expected="all norms of the language model, or of the tower",
        )
    method = LayerNormTuning(LANGUAGE_NORMS in parts, VISION_NORMS in parts, bool(interaction))
    return Translation(method, {**sources, **interaction})


def key_of(name: str) -> str:
    """Returns what tells a norm from the others of its tower, whatever the tower is called."""
    last = name.rpartition(".")[2]
    return last if last in LAST else numbered(name)
