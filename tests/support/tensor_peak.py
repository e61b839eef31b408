"""The most memory that tensors take at a time while something runs, counted storage by storage, so repeatable."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TensorPeak(TorchDispatchMode):
    """Counts the storages that operations make while the mode is on.

    Attributes:
        peak: Bytes of those that were there at the same time, at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._watched: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        known = {tensor.untyped_storage()._cdata for tensor in tree_leaves((arguments, keywords)) if is_tensor(tensor)}
        output = function(*arguments, **(keywords or {}))
        for tensor in tree_leaves(output):
            if is_tensor(tensor) and tensor.untyped_storage()._cdata not in known | set(self._watched):
                self._watch(tensor.untyped_storage())
        return output

    def _watch(self, storage: Any) -> None:
        address, size = storage._cdata, storage.nbytes()

        def gone(_reference: Any) -> None:
            del self._watched[address]
            self._now -= size

        self._watched[address] = weakref.ref(storage, gone)
        self._now += size
        self.peak = max(self.peak, self._now)


def is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)
