"""Shares of a frozen base under DeepSpeed's stage 3: each process reads its own, and a unit is whole while it runs.

DeepSpeed gives each of N processes one piece of a tensor's numbers in their order, the last ones padded. Its own ways
to share out (``zero.Init``) want the whole tensor in every process, and send it from the first one to all others.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.filling.shares import OWN_WAY, assign


@dataclass(frozen=True)
class PieceOfZero:
    """One process's piece of a tensor.

    Attributes:
        cutter: DeepSpeed's ``zero.Init``, which cuts.
        rows: The rows that the piece lies in; the first and the last one can be another process's in part.
    """

    cutter: Any
    rows: slice

    def put(self, owner: nn.Module, leaf: str, rows: Tensor) -> None:
        """Lets the module hold the piece; the whole tensor's memory is there for a moment, with nothing in the rest."""
        held: Tensor = getattr(owner, leaf)
        room = torch.empty(held.shape, dtype=rows.dtype, device=self.cutter.local_device)
        room[self.rows] = rows
        assign(owner, leaf, room)
        self.cut(getattr(owner, leaf))

    def cut(self, parameter: nn.Parameter) -> None:
        """Leaves of a parameter that has at least these rows the piece alone."""
        kept: Any = parameter
        # Not by zero.Init(module=...): that sends the first process's tensor, of which it has no other rows than these.
        self.cutter._convert_to_deepspeed_param(kept)
        kept.partition()
        setattr(parameter, OWN_WAY, self)

    def whole(self, held: Tensor) -> Tensor:
        """Returns a copy of the whole tensor."""
        from deepspeed import zero

        with zero.GatheredParameters([held]):
            return held.detach().clone()


def rows_of_piece(shape: Sequence[int], rank: int, ranks: int) -> slice:
    """Returns the rows that a process's piece of a tensor lies in; none if there is nothing left for it.

    Args:
        shape: The tensor's sizes, at least one.
        rank: The process.
        ranks: All of them.
    """
    width = torch.Size(shape[1:]).numel()
    numbers = shape[0] * width
    piece = -(-numbers // ranks)
    start, end = (min(piece * number, numbers) for number in (rank, rank + 1))
    return slice(start // width, -(-end // width)) if start < end else slice(shape[0], shape[0])


def share_out_units(units: Sequence[nn.Module], trained: Collection[nn.Parameter], cutter: Any) -> None:  # noqa: ANN401
    """Shares the frozen tensors of units out: those with numbers now, those on the meta device when they are read.

    Calling it again does nothing with what is shared out.

    Args:
        units: The backbone's.
        trained: The trained tensors that are there already; they stay whole.
        cutter: DeepSpeed's ``zero.Init``, the same for all.
    """
    whole = set(trained)
    for parameter in (each for unit in units for each in unit.parameters()):
        if parameter in whole or hasattr(parameter, OWN_WAY):
            continue
        parameter.requires_grad_(False)
        piece = PieceOfZero(cutter, rows_of_piece(parameter.shape, cutter.rank, cutter.dp_world_size))
        if parameter.is_meta:
            setattr(parameter, OWN_WAY, piece)
        else:
            parameter.data = parameter.data.to(cutter.local_device)
            piece.cut(parameter)


@contextmanager
def whole_while_they_run(units: Sequence[nn.Module]) -> Iterator[None]:
    """Gathers each unit for its own pass, as long as this lasts; without gradients, before DeepSpeed's engine is there.

    All processes have to run the same units.

    Args:
        units: The backbone's, shared out.
    """
    from deepspeed import zero

    gathered: dict[nn.Module, ExitStack] = {}

    def gather(unit: nn.Module, _arguments: object) -> None:
        gathered[unit] = ExitStack()
        for parameter in unit.parameters():  # of several at once it would have two copies for a moment
            gathered[unit].enter_context(zero.GatheredParameters([parameter]))

    def give_up(unit: nn.Module, _arguments: object, _result: object) -> None:
        gathered.pop(unit).close()

    hooks = [unit.register_forward_pre_hook(gather, prepend=True) for unit in units]
    hooks += [unit.register_forward_hook(give_up) for unit in units]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
