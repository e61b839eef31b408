"""Counts what ranks exchange where every exchange passes: at torch's operators, below DDP, FSDP2 and DeepSpeed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GATHER, REDUCE, SCATTER, BROADCAST = "all-gather", "all-reduce", "reduce-scatter", "broadcast"
KINDS = {
    "_allgather_base_": (GATHER, 0),
    "allgather_": (GATHER, 0),
    "allgather_into_tensor_coalesced_": (GATHER, 0),
    "allreduce_": (REDUCE, 0),
    "allreduce_coalesced_": (REDUCE, 0),
    "reduce_": (REDUCE, 0),
    "_reduce_scatter_base_": (SCATTER, 1),
    "reduce_scatter_": (SCATTER, 1),
    "reduce_scatter_tensor_coalesced_": (SCATTER, 1),
    "broadcast_": (BROADCAST, 0),
}
"""Of every operator: what it does, and which argument holds the whole that is exchanged."""


@dataclass(frozen=True)
class Exchange:
    """One collective operation.

    Attributes:
        kind: What it does.
        size: Bytes of the whole: what is gathered, reduced or handed on.
    """

    kind: str
    size: int


class ExchangeCounter(TorchDispatchMode):
    """Sees every collective operation of this thread.

    Attributes:
        exchanges: All that have been seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.exchanges: list[Exchange] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Notes the operation and lets it run."""
        namespace, name = func._schema.name.split("::")
        if namespace == "c10d" and name in KINDS:
            kind, place = KINDS[name]
            tensors = [each for each in tree_leaves(args[place]) if isinstance(each, Tensor)]
            self.exchanges.append(Exchange(kind, sum(each.numel() * each.itemsize for each in tensors)))
        return func(*args, **(kwargs or {}))


@contextmanager
def exchanges() -> Iterator[list[Exchange]]:
    """Yields a list to which every collective operation of this thread is added."""
    with ExchangeCounter() as counter:
        yield counter.exchanges


def sent(found: list[Exchange], kind: str, devices: int) -> float:
    """Returns the bytes that a ring's device sends for all operations of a kind."""
    times = {GATHER: 1, SCATTER: 1, REDUCE: 2, BROADCAST: 1}[kind]
    return times * (devices - 1) / devices * sum(each.size for each in found if each.kind == kind)
