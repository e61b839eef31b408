"""What a weight file holds, by the names of its tensors, and the names that it gets."""

import re
from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias

from torch import Tensor

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.foreign.clip_layouts import OPEN_CLIP, TRANSFORMERS, VISUAL_PROJECTION
from lightning_m2pt.visible_text import counted

Kind: TypeAlias = Literal["projector", "open_clip", "transformers_clip", "published_m2pt", "names_kept"]

PROJECTOR = re.compile(r"(?:.*\.)?mm_projector\.(.+)")
PROJECTOR_NAMES = re.compile(r"(?:\d+\.)?(?:weight|bias)")
"""Of a linear projector, or of the linear layers of a sequence, as LLaVA's ``mlp2x_gelu`` is one."""
OF_OPENAI = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's archives keep among the tensors."""
TOWER_ALONE = ("class_embedding", "conv1.weight")
CLIP_SIGNS = ("embeddings.class_embedding", "pre_layrnorm.weight")
LLAVA_TOWER = "model.vision_tower.vision_tower."
"""What LLaVA's checkpoints put in front of a tower that was tuned."""
DECODER_PROMPTS, VISION_PROMPTS = re.compile(r"model\.prompts\.\d+"), re.compile(r".*encoder\.prompts\.\d+")


def kind_of(names: Collection[str]) -> Kind:
    """Returns what tensors of these names are; ``names_kept`` is everything that only changes its container."""
    if any(DECODER_PROMPTS.fullmatch(name) or VISION_PROMPTS.fullmatch(name) for name in names):
        return "published_m2pt"
    if all(PROJECTOR.fullmatch(name) for name in names):
        return "projector"
    if f"{OPEN_CLIP}conv1.weight" in names or all(name in names for name in TOWER_ALONE):
        return "open_clip"
    if transformers_prefix(names) is not None:
        return "transformers_clip"
    return "names_kept"


def transformers_prefix(names: Collection[str]) -> str | None:
    """Returns what a CLIP tower's names in transformers' layout begin with; None if there is no tower."""
    for prefix in ("", TRANSFORMERS, f"{LLAVA_TOWER}{TRANSFORMERS}"):
        if all(f"{prefix}{sign}" in names for sign in CLIP_SIGNS):
            return prefix
    return None


def tower_alone(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Returns a tower's tensors without their prefix, and the projection of CLIP's vision side if it is there."""
    tower = {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
    if prefix == "":  # nothing else stands in such a file
        return tower
    if VISUAL_PROJECTION in tensors:
        tower[VISUAL_PROJECTION] = tensors[VISUAL_PROJECTION]
    return tower


def projector_tensors(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Returns a projector under the names its modules have: ``weight`` and ``bias``, or ``0.weight``, ``2.bias``.

    Raises:
        BadInputError: If it is of another form, or layers do not fit together.
    """
    named = {match[1]: tensor for name, tensor in tensors.items() if (match := PROJECTOR.fullmatch(name))}
    expected = "a linear layer, or a sequence of linear layers"
    others = [name for name in named if PROJECTOR_NAMES.fullmatch(name) is None]
    if others or len(named) < len(tensors):
        raise BadInputError(f"a projector of another form: {counted(others)}", where=source, expected=expected)
    layers = sorted({name.rpartition(".")[0] for name in named}, key=lambda name: int(name or 0))
    width, has_bias = None, any(name.endswith("bias") for name in named)
    for layer in layers:
        begin = f"{layer}." if layer else ""
        weight, bias = (named.get(f"{begin}{kind}") for kind in ("weight", "bias"))
        if weight is None or weight.dim() != 2 or (has_bias and (bias is None or bias.shape != weight.shape[:1])):
            shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in named.items())
            raise BadInputError(f"layer {layer or 0} has no fitting pair: {shapes}", where=source, expected=expected)
        if width not in (None, weight.shape[1]):
            raise BadInputError(
                f"layer {layer} takes {weight.shape[1]} numbers and gets {width}", where=source, expected=expected
            )
        width = weight.shape[0]
    return named


def open_clip_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a CLIP model under open_clip's names: OpenAI's numbers left out, a tower alone named as a part."""
    kept = {name: tensor for name, tensor in tensors.items() if name not in OF_OPENAI}
    is_alone = f"{OPEN_CLIP}conv1.weight" not in kept
    return {f"{OPEN_CLIP}{name}": tensor for name, tensor in kept.items()} if is_alone else kept
