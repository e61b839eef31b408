"""From the one word that names a base, on a command line or in a program, to a backbone that has read configuration."""

from pathlib import Path
from typing import Literal

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.embedded import WITH_WEIGHTS, embedded_backbone
from lightning_m2pt.backbones.quantised import Quantization
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.backbones.whole_model_files import KEY
from lightning_m2pt.errors import BadInputError

Dtype = Literal["float32", "bfloat16", "float64"]


def named_base(
    name: str, *, dtype: Dtype | None = None, quantization: Quantization | None = None, where: str = "base"
) -> Backbone:
    """Returns the backbone of that name; no weights are loaded.

    Args:
        name: The folder of a whole model, ``hub:OWNER/NAME`` of one that was fetched, or an embedded backbone. A folder
            that is there wins.
        dtype: Type of the frozen weights; None takes float32 of an embedded one and bfloat16 of others.
        quantization: How the decoder's weights are packed; None: not at all.
        where: What the name was given as, for messages.

    Raises:
        BadInputError: If there is no such base, it is of no known family, or cannot be packed.
    """
    if name in WITH_WEIGHTS and not Path(name).is_dir():
        if quantization is not None:
            raise BadInputError(
                "the weights of an embedded backbone are not packed", where=where, expected="no quantization"
            )
        return embedded_backbone(name, dtype or "float32")
    try:
        return VisionLanguageModel(name, dtype=dtype or "bfloat16", quantization=quantization)
    except BadInputError as error:
        if error.where != KEY:
            raise
        expected = f"{error.expected}; or {' or '.join(WITH_WEIGHTS)}, which come with the package"
        raise BadInputError(error.what, where=where, expected=expected, hint=error.hint) from error
