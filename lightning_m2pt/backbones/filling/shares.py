"""Which rows of a tensor a process holds where a strategy has shared it out, and how they get into their module."""

import copy
import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Replicate, Shard

OWN_WAY = "weight_share"
"""Attribute by which a strategy says of a parameter which share of it a process holds, before it is read and after."""


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

    def whole(self, held: Tensor) -> Tensor:
        """Returns the whole of what a module holds in this way; every process has to ask for it.

        Args:
            held: What ``put`` has left in the module.
        """


@dataclass(frozen=True)
class Whole:
    """All of a tensor."""

    rows: slice | None = None

    def put(self, owner: nn.Module, leaf: str, rows: Tensor) -> None:
        """Lets the module hold the tensor."""
        assign(owner, leaf, rows)

    def whole(self, held: Tensor) -> Tensor:
        """Returns the tensor."""
        return held.detach()


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

    def whole(self, held: Tensor) -> Tensor:
        """Returns the rows of all processes."""
        return whole(held)


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


def whole(tensor: Tensor) -> Tensor:
    """Returns a frozen tensor with all its rows; where they are shared out, every process has to ask for them."""
    own: Share | None = getattr(tensor, OWN_WAY, None)
    if own is not None:
        return own.whole(tensor)
    kept = tensor.detach()
    return kept.full_tensor() if isinstance(kept, DTensor) else kept


def whole_copy(module: nn.Module) -> nn.Module:
    """Returns a float32 copy of a frozen module; as for ``whole``.

    Raises:
        TypeError: If the module is shared out as a unit of its own and is not linear.
    """
    if FSDPModule in type(module).__mro__:  # it cannot be copied: its hooks are a strategy's
        if not isinstance(module, nn.Linear):
            raise TypeError(f"{type(module).__name__} is shared out and cannot be copied")
        copied = empty_like(module)
        for name, tensor in module.named_parameters():
            assign(copied, name, whole(tensor).float())
        return copied
    instead = {id(each): nn.Parameter(whole(each), each.requires_grad) for each in module.parameters()}
    return copy.deepcopy(module, instead if any_is_cut(module) else {}).float()


def empty_like(linear: nn.Linear) -> nn.Module:
    """Returns a linear layer of the same sizes, type and device that holds all its rows and no numbers."""
    sizes, weight = (linear.in_features, linear.out_features, linear.bias is not None), linear.weight
    made: nn.Module = nn.utils.skip_init(nn.Linear, *sizes, device=weight.device, dtype=weight.dtype)  # draws nothing
    return made


def any_is_cut(module: nn.Module) -> bool:
    """Tells whether rows of a module's tensors are shared out."""
    return any(isinstance(each, DTensor) or hasattr(each, OWN_WAY) for each in module.parameters())


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
