"""Several processes begin one run: what each of them was told and found is compared before weights load."""

import json
import platform
from collections.abc import Callable
from typing import Any

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_m2pt.configuration.tree import first_difference
from lightning_m2pt.errors import BadInputError

LONGEST = 100


class SameStart(Callback):
    """Compares the processes of a training as soon as they are connected; a single process does nothing.

    Args:
        start: Returns what has to be the same in all of them, as a tree of plain values.
        connected: Called once they are connected.
    """

    def __init__(self, start: Callable[[], dict[str, Any]], connected: Callable[[], None]) -> None:
        self.start = start
        self.connected = connected

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not torch.distributed.is_initialized():
            return  # a strategy of several processes that does not connect them is refused before the first step
        self.connected()
        mine = json.dumps([platform.node(), self.start()], default=str)
        found: list[str] = [""] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(found, mine)
        refuse_other_starts([json.loads(each) for each in found])


def refuse_other_starts(starts: list[tuple[str, dict[str, Any]]]) -> None:
    """Compares what processes begin with.

    Args:
        starts: Host, and what the process begins with, of every process in order of rank.

    Raises:
        BadInputError: If one differs from the first: what differs first, on which rank and host.
    """
    first_host, first = starts[0]
    for rank, (host, start) in enumerate(starts):
        if start == first:
            continue
        key, of_first, of_other = first_difference(first, start)
        raise BadInputError(
            f"{key} is {shown(of_first)} on rank 0 ({first_host}) and {shown(of_other)} on rank {rank} ({host})",
            where="ranks",
            expected="the same command, code, packages, data and checkpoints for all of them",
            hint="nothing was loaded; with more than one node, each needs the same checkout, environment and files",
        )


def shown(value: Any) -> str:
    """Returns a value as a message has room for it."""
    return json.dumps(value)[:LONGEST]
