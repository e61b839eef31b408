"""Which rows of a tensor a process holds where a strategy has shared it out, and how they get into their module."""

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, Shard

OWN_WAY = "weight_share"
"""Attribute by which a strategy says of a parameter on the meta device which share of it a process holds."""


class Share(Protocol):
    """What a process holds of a tensor."""

    @property
    def rows(self) -> slice | None:
        """Returns which rows, of dimension 0, have to be read for it; None: all."""

    def put(self, owner: nn.Module, leaf: str, rows: Tensor) -> None:
        """Lets a module hold what was read in the place of the tensor without numbers.

        Args:
            owner: The module that has the tensor as an attribute.
            leaf: The attribute's name.
            rows: The rows, of no memory that somebody else holds.
        """


@dataclass(frozen=True)
class Whole:
    """All of a tensor."""

    rows: slice | None = None

    def put(self, owner: nn.Module, leaf: str, rows: Tensor) -> None:
        """Lets the module hold the tensor."""
        assign(owner, leaf, rows)


@dataclass(frozen=True)
class RowsOfMesh:
    """The rows of a tensor that torch cut along dimension 0 over a mesh.

    Attributes:
        cut: The tensor without numbers.
        rows: Those of this process.
    """

    cut: DTensor
    rows: slice

    def put(self, owner: nn.Module, leaf: str, rows: Tensor) -> None:
        """Lets the module hold a cut tensor again, whose rows of this process are these."""
        cut = self.cut
        placed = DTensor.from_local(
            rows, cut.device_mesh, cut.placements, run_check=False, shape=cut.shape, stride=cut.stride()
        )
        assign(owner, leaf, placed)


def assign(owner: nn.Module, leaf: str, tensor: Tensor) -> None:
    """Lets a module hold a tensor in the place of what it has there: as a parameter if that is one."""
    held = getattr(owner, leaf)
    value = nn.Parameter(tensor, requires_grad=held.requires_grad) if isinstance(held, nn.Parameter) else tensor
    hold(owner, leaf, value)


def hold(owner: nn.Module, leaf: str, value: Tensor) -> None:
    """Lets a module hold a parameter or buffer as it is."""
    setattr(owner, leaf, value)
    owner.load_state_dict({}, strict=False)  # FSDP2 keeps references; in a hook of this it looks for new ones


def share_of(tensor: Tensor) -> Share:
    """Returns what this process holds of a tensor that stands in a module on the meta device.

    Raises:
        ValueError: If the tensor is cut in another way than along dimension 0.
    """
    own: Share | None = getattr(tensor, OWN_WAY, None)
    if own is not None:
        return own
    return RowsOfMesh(tensor, rows_of_mesh(tensor)) if isinstance(tensor, DTensor) else Whole()


def rows_of_mesh(cut: DTensor) -> slice:
    """Returns which rows of a cut tensor this process holds: as ``torch.chunk`` cuts, the first ones are the larger.

    Raises:
        ValueError: If it is cut in another way than along dimension 0 of one mesh dimension.
    """
    cuts = [number for number, placement in enumerate(cut.placements) if placement != Replicate()]
    coordinate = cut.device_mesh.get_coordinate()
    if len(cuts) != 1 or cut.placements[cuts[0]] != Shard(0) or coordinate is None:
        raise ValueError(f"a tensor is cut by {cut.placements}; only rows of one mesh dimension can be read")
    number = cuts[0]
    most = math.ceil(cut.shape[0] / cut.device_mesh.size(number))
    start = min(coordinate[number] * most, cut.shape[0])
    rows = slice(start, min(start + most, cut.shape[0]))
    if rows.stop - rows.start != len(cut.to_local()):
        raise ValueError(f"a process holds {len(cut.to_local())} of {cut.shape[0]} rows, not {rows.stop - rows.start}")
    return rows
