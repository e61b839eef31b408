"""Where a method makes its tensors."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lightning_m2pt.backbones.base import Backbone


@contextmanager
def new_tensors(backbone: Backbone) -> Iterator[bool]:
    """Makes modules on the CPU, where the run's generator draws, or without memory if the backbone has none itself.

    What their constructors draw is overwritten; the global generators do not notice.

    Yields:
        Whether they have no memory, and so no numbers to start from.
    """
    is_meta = next(backbone.parameters()).is_meta
    with torch.device("meta" if is_meta else "cpu"), torch.random.fork_rng(devices=[]):
        yield is_meta
