"""What an adapter says of the frozen base that it was made for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.origins.pictures import picture_settings
from lightning_m2pt.backbones.origins.said import BaseOrigin


@dataclass(frozen=True)
class AdapterBase:
    """A base, as an adapter's configuration names it.

    Attributes:
        name: Readable name.
        fingerprint: Names its content.
        dtype: Type of its weights, such as ``bfloat16``.
        quantization: How its weights were packed; None if they were not.
        origin: Where it comes from; None says that nothing but its content names it.
        pictures: How it reads pictures.
    """

    name: str
    fingerprint: str
    dtype: str | None = None
    quantization: str | None = None
    origin: BaseOrigin | None = None
    pictures: Mapping[str, Any] | None = None


def adapter_base_of(backbone: Backbone) -> AdapterBase:
    """Returns all that an adapter says of a base; needs no weights of it in memory."""
    origin, fingerprint = backbone.origin(), backbone.fingerprint()
    return AdapterBase(
        name=origin.readable_name(fingerprint),
        fingerprint=fingerprint,
        dtype=backbone.dtype_name,
        quantization=backbone.quantization,
        origin=origin,
        pictures=picture_settings(backbone),
    )
