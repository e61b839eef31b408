"""Counts that need no clock: bytes held for the backward pass, and floating-point operations."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.training.peer import Peer

Shape = Sequence[int]


def visible_share(queries: Shape, keys: Shape, is_causal: bool) -> float:
    """Returns the share of pairs that a kernel computes: a causal one leaves out what lies above the diagonal."""
    rows, columns = queries[-2], keys[-2]
    visible = sum(min(row + 1, columns) for row in range(rows)) if is_causal else rows * columns
    return visible / (rows * columns)


def attention_forward(
    queries: Shape, keys: Shape, values: Shape, dropout: float = 0.0, is_causal: bool = False, **_: Any
) -> int:
    """Returns two products."""
    return round(sdpa_flop_count(queries, keys, values) * visible_share(queries, keys, is_causal))


def attention_backward(
    gradient: Shape,
    queries: Shape,
    keys: Shape,
    values: Shape,
    output: Shape,
    logarithms: Shape,
    dropout: float = 0.0,
    is_causal: bool = False,
    **_: Any,
) -> int:
    """Returns five products."""
    products = sdpa_backward_flop_count(gradient, queries, keys, values)
    return round(products * visible_share(queries, keys, is_causal))


CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
}
"""torch's counter knows the GPU's fused attention, not the CPU's. It counts masked pairs too; the CPU's causal kernel
skips them, so they are left out here. Pairs behind an explicit mask are computed, and count."""


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


@dataclass(frozen=True)
class Counts:
    """What one step costs without looking at a clock.

    Attributes:
        loss: Before the step.
        saved_bytes: Held when the forward pass has ended. What a recomputing step holds during its backward pass, one
            layer at a time, comes on top and is not counted.
        flops: Of forward and backward pass by torch's counter: matrix products, convolutions, fused attention.
    """

    loss: float
    saved_bytes: int
    flops: int


def counts_of(peer: Peer) -> Counts:
    """Runs one forward and backward pass and counts; no weight moves."""
    books = SavedBytes(peer.modules)
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        with saved_tensors_hooks(books.pack, books.unpack):
            loss = peer.loss()
        held = sum(books.sizes.values())
        loss.backward()
    peer.forget_gradients()
    return Counts(float(loss.detach()), held, int(counter.get_total_flops()))
