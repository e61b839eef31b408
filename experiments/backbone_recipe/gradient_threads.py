"""Parts of one step's loss computed side by side, with the same sum on every run."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import Parameter

from experiments.backbone_recipe.training_loop import use_one_thread

THREADS = 2


class GradientThreads:
    """Computes the gradients of several losses, each in a thread of its own with one-thread operations.

    Two such threads are faster than one thread with two-thread operations, by far where the cores are shared. Adding up
    the gradients in the order of the losses, whichever ends first, keeps the result bit-identical.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, initializer=use_one_thread)

    def gradients(self, losses: Sequence[Callable[[], Tensor]], parameters: Iterable[Parameter]) -> list[float]:
        """Computes the sum of the losses' gradients into the parameters and returns the losses."""
        trained = list(parameters)

        def compute(loss: Callable[[], Tensor]) -> tuple[float, tuple[Tensor | None, ...]]:
            value = loss()
            return value.item(), torch.autograd.grad(value, trained, allow_unused=True)

        results = list(self._pool.map(compute, losses))
        for index, parameter in enumerate(trained):
            parts = [gradients[index] for _, gradients in results]
            present = [part for part in parts if part is not None]
            if present:
                parameter.grad = torch.stack(present).sum(dim=0)
        return [value for value, _ in results]
