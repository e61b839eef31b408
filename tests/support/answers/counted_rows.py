"""How many rows a decoder has run, and how often a tower."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from lightning_m2pt.backbones.base import Backbone


class Counts:
    """What has run since.

    Attributes:
        rows: Rows that the decoder's first layer was given, of all samples; learned keys are no rows.
        pictures: Calls of the backbone's ``connected_pixels``.
    """

    rows: int = 0
    pictures: int = 0


@contextmanager
def counted(backbone: Backbone) -> Iterator[Counts]:
    """Counts as long as it lasts."""
    counts = Counts()
    connected = backbone.connected_pixels

    def count_rows(_layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        states = given[0] if given else named["hidden_states"]
        counts.rows += states.shape[0] * states.shape[1]

    def count_pictures(*given: Any) -> Any:
        counts.pictures += 1
        return connected(*given)

    handle = backbone.decoder().layers[0].register_forward_pre_hook(count_rows, with_kwargs=True)
    backbone.connected_pixels = count_pictures  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        handle.remove()
        del backbone.connected_pixels
