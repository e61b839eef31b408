"""What keeps ranks in step where weights are shared out: each run of a module gathers its weights from all ranks."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning_m2pt.backbones.base import Backbone


def nothing_of_a_picture(backbone: "Backbone") -> Tensor:
    """Runs tower and connector over a black picture and returns 0, which depends on them as a picture's rows would.

    For a rank whose samples have no picture: another's may, and its tower waits for this rank's shares, forward and
    backward. It must run where a picture would, before words are embedded: the backward pass goes the same way back.
    """
    pixels, sizes = backbone.invented_pictures(1, torch.Generator().manual_seed(0))
    device = backbone.token_embedding().weight.device
    given = torch.zeros_like(pixels).to(device), None if sizes is None else sizes.to(device)
    return backbone.connected_rows(*given).rows.sum() * 0
