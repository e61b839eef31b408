"""Positions on three axes (M-RoPE of Qwen's vision-language models), in one number a row.

A row of text has one position on all axes. A row of a picture has the picture's first position on the first axis, and
its line and column behind it on the second and the third; the text behind a picture goes on behind the longer side. All
passes hand one number a row on, to which the length of what stands in front may be added; only the rotation itself,
through a hook, sees what the number means.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

BITS = 20
"""Of each of the three parts."""
LARGEST = (1 << BITS) - 1


def coded(lines: Tensor, columns: Tensor) -> Tensor:
    """Returns what is added to a picture's first position for rows in these lines and columns."""
    return (lines << BITS) + (columns << 2 * BITS)


def first_axis(positions: Tensor) -> Tensor:
    """Returns the position on the first axis; of a row of text its only one."""
    return positions & LARGEST


def behind(positions: Tensor) -> Tensor:
    """Returns the positions of text rows that come next behind rows that end a text or a picture."""
    lines, columns = first_axis(positions >> BITS), first_axis(positions >> 2 * BITS)
    return first_axis(positions) + torch.maximum(lines, columns) + 1


def on_three_axes(positions: Tensor) -> Tensor:
    """Returns positions (3, B, N) on each axis of the numbers (3, B, N), of which each axis is given a copy."""
    first, second, third = positions
    return torch.stack(
        [
            first_axis(first),
            first_axis(second) + first_axis(second >> BITS),
            first_axis(third) + first_axis(third >> 2 * BITS),
        ]
    )


def rotate_on_three_axes(decoder: Any) -> RemovableHandle:  # noqa: ANN401  (transformers' model without its head)
    """Lets a decoder's rotation read numbers of this kind; positions that the library makes mean what they did."""

    def read(_rotation: Any, given: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        states, positions = given
        return states, on_three_axes(positions)

    handle: RemovableHandle = decoder.rotary_emb.register_forward_pre_hook(read)
    return handle


def positions_of_rows(advances: Tensor, within: Tensor) -> Tensor:
    """Returns the position of each row (B, N) of whole sequences.

    Args:
        advances: (B, N) by how much each row moves on what stands behind it.
        within: (B, N) what is added for a row's place in its picture.
    """
    return advances.cumsum(dim=1) - advances + within
