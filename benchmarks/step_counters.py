"""Counts that need no clock: bytes held for the backward pass, and floating-point operations."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.peer import Peer

Shape = Sequence[int]


def attention_forward(queries: Shape, keys: Shape, values: Shape, *_: Any, **__: Any) -> int:
    """Returns two products, masked pairs included."""
    return sdpa_flop_count(queries, keys, values)


def attention_backward(gradient: Shape, queries: Shape, keys: Shape, values: Shape, *_: Any, **__: Any) -> int:
    """Returns five products, masked pairs included."""
    return sdpa_backward_flop_count(gradient, queries, keys, values)


CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
}
"""torch's counter knows the GPU's fused attention, not the CPU's; the formula is the same."""


class _Held:
    """A saved tensor that takes its storage off the books when the graph lets go of it."""

    def __init__(self, tensor: Tensor, books: "SavedBytes") -> None:
        self.tensor, self.books = tensor, books
        self.place = tensor.untyped_storage().data_ptr()
        books.holders[self.place] += 1
        books.sizes[self.place] = tensor.untyped_storage().nbytes()

    def __del__(self) -> None:
        self.books.holders[self.place] -= 1
        if not self.books.holders[self.place]:
            del self.books.holders[self.place], self.books.sizes[self.place]


class SavedBytes:
    """Bytes of the storages that the graph holds, each counted once, weights and buffers left out.

    Args:
        modules: Whose weights and buffers are left out.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.holders: Counter[int] = Counter()
        self.sizes: dict[int, int] = {}
        tensors = [tensor for module in modules for tensor in [*module.parameters(), *module.buffers()]]
        self._weights = {tensor.untyped_storage().data_ptr() for tensor in tensors}

    def pack(self, tensor: Tensor) -> Any:
        """Takes a tensor that is saved."""
        is_weight = tensor.untyped_storage().data_ptr() in self._weights
        return tensor if is_weight else _Held(tensor, self)

    def unpack(self, packed: Any) -> Tensor:
        """Gives it back."""
        return packed.tensor if isinstance(packed, _Held) else packed


def saved_bytes(peer: Peer) -> int:
    """Returns the bytes held when the forward pass has ended.

    What a recomputing step holds during its backward pass, one layer at a time, comes on top and is not counted.
    """
    books = SavedBytes(peer.modules)
    with saved_tensors_hooks(books.pack, books.unpack):
        loss = peer.loss()
        held = sum(books.sizes.values())
    del loss
    return held


def counted_flops(peer: Peer) -> int:
    """Returns the operations of one whole step by torch's counter: matrix products, convolutions, fused attention."""
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        peer.loss().backward()
    peer.forget_gradients()
    return int(counter.get_total_flops())
