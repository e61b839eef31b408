"""Tensors that every rank has whole: brought together over all ranks in one exchange."""

from collections.abc import Sequence

import torch
import torch.distributed
from torch import Tensor, nn


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replaces gradients by their average over all ranks; every rank has to call it with the same parameters.

    One buffer for each type goes over the wire. A tensor with a gradient on some ranks counts as zero on the others;
    without one on any rank it keeps none.

    Args:
        parameters: Plain tensors on one device.
    """
    ranks = torch.distributed.get_world_size()
    if ranks == 1:
        return
    for dtype in dict.fromkeys(parameter.dtype for parameter in parameters):
        own = [parameter for parameter in parameters if parameter.dtype == dtype]
        present = torch.tensor([parameter.grad is not None for parameter in own], dtype=dtype, device=own[0].device)
        pieces = [torch.zeros_like(each) if each.grad is None else each.grad for each in own]
        buffer = torch.cat([*(piece.flatten() for piece in pieces), present]) / ranks
        torch.distributed.all_reduce(buffer)
        *averages, present = buffer.split([*(each.numel() for each in own), len(own)])
        for parameter, average, share in zip(own, averages, present.tolist(), strict=True):
            parameter.grad = average.view_as(parameter).clone() if share else None


@torch.no_grad()
def same_as_first_rank(tensors: Sequence[Tensor]) -> None:
    """Replaces tensors by those of rank 0; every rank has to call it with tensors of the same shapes."""
    for tensor in tensors:
        torch.distributed.broadcast(tensor, 0)
