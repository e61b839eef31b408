"""One of the training steps that are compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn, optim

LEARNING_RATE = 7e-4


@dataclass
class Peer:
    """A training step: loss, gradients, AdamW. Nobody clips gradients or changes the rate.

    Attributes:
        name: What the tables call it.
        loss: Runs the forward pass on the fixed batch; returns the mean over its supervised tokens.
        trained: What the optimizer moves.
        modules: Hold every weight of the forward pass, trained or not.
    """

    name: str
    loss: Callable[[], Tensor]
    trained: Sequence[nn.Parameter]
    modules: Sequence[nn.Module]
    _optimizer: optim.AdamW = field(init=False)

    def __post_init__(self) -> None:
        """Makes the optimizer, the same for everybody."""
        self._optimizer = optim.AdamW(self.trained, lr=LEARNING_RATE, weight_decay=0.0)

    @property
    def trained_numbers(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.trained)

    def step(self) -> None:
        """Makes one whole step."""
        self._optimizer.zero_grad()
        self.loss().backward()
        self._optimizer.step()

    def forget_gradients(self) -> None:
        """Frees the gradients."""
        self._optimizer.zero_grad()
