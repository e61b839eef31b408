"""The backbones that come with the package, for those who make one in Python."""

from typing import Literal

from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.origins.said import EMBEDDED_FILES, WITH_WEIGHTS
from lightning_m2pt.configuration.paths import EMBEDDED
from lightning_m2pt.errors import BadInputError


def embedded_backbone(
    name: str = "testbed", dtype: Literal["float32", "bfloat16", "float64"] = "float32"
) -> OpenClipLlama:
    """Returns an embedded backbone; no weights are loaded.

    Args:
        name: ``testbed`` or ``testbed_patch12``.
        dtype: Type of the frozen weights.

    Raises:
        BadInputError: If there is none of this name.
    """
    if name not in WITH_WEIGHTS:
        raise BadInputError(f"{name!r:.40} is no embedded backbone", where="name", expected=" or ".join(WITH_WEIGHTS))
    files = {argument: str(EMBEDDED / name / place) for argument, place in EMBEDDED_FILES.items()}
    return OpenClipLlama(**files, dtype=dtype)  # type: ignore[arg-type]
