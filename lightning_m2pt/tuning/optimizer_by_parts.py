"""One optimizer for parts of a method that move by different rules, and for tensors of which some entries stay.

It is one object, and torch's AdamW for all that no rule names, so that schedules, checkpoints, strategies and gradient
scaling see what they see otherwise.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn, optim
from typing_extensions import override

from lightning_m2pt.tuning.gradient_norm import mask_of, masked, move

RULE = "gradient_norm"
"""The setting of a group that is moved by the gradient's direction; its value is what the gradient is divided by."""
WAITS = "waits"
"""The setting of a group that begins later: how many steps still pass before its first. It counts down, and so a
checkpoint knows it."""


class AdamWByParts(optim.AdamW):
    """AdamW, but for groups that name another rule or wait, with masked gradients where a tensor's entries stay."""

    @override
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Makes one step of every group, each by its rule."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if RULE in group:
                move(group["params"], group["lr"], group[RULE])
        with self.only_adamws():
            super().step()
        for group in self.param_groups:
            if group.get(WAITS):
                group[WAITS] -= 1
        return loss

    @contextmanager
    def only_adamws(self) -> Iterator[None]:
        """Leaves for a while only the gradients that AdamW takes in this step, masked.

        Those of a rule and of groups that wait are None meanwhile: zeros would age moments and let weights decay.
        """
        apart: list[tuple[nn.Parameter, Tensor | None]] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if RULE in group or group.get(WAITS):
                    apart.append((parameter, parameter.grad))
                    parameter.grad = None
                elif parameter.grad is not None and mask_of(parameter) is not None:
                    parameter.grad = masked(parameter, parameter.grad)
        try:
            yield
        finally:
            for parameter, gradient in apart:
                parameter.grad = gradient


@contextmanager
def only_what_is_clipped(optimizer: object) -> Iterator[None]:
    """Leaves for a while the gradients whose norm is limited.

    A step of fixed length is the same after clipping, and its gradient, that of entries that stay included, would only
    make the steps of all other parts shorter; so would that of a part that does not move yet.

    Args:
        optimizer: Of any class.
    """
    if isinstance(optimizer, AdamWByParts):
        with optimizer.only_adamws():
            yield
    else:
        yield
