"""What is trained, and its gradients, whole and by name under every strategy.

Whoever reads gradients or values of trained tensors while a Trainer trains reads them here: a strategy may keep them in
places of its own, where a parameter holds a piece, or nothing.
"""

from typing import Protocol, runtime_checkable

from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_m2pt.methods.trained_parameters import trained_parameters


@runtime_checkable
class KeepsTensorsApart(Protocol):
    """A strategy under which a trained parameter or its ``.grad`` is not the whole tensor.

    Both methods are called on all ranks at once, and answer with the same numbers on each. The names are those of the
    module's ``named_parameters()``.
    """

    def trained_gradients(self, module: nn.Module) -> dict[str, Tensor]:
        """Returns the gradients of the optimizer step that is due, averaged over ranks, as the optimizer takes them."""
        ...

    def trained_tensors(self, module: nn.Module) -> dict[str, Tensor]:
        """Returns the trained tensors."""
        ...


def whole_gradients(trainer: Trainer, module: nn.Module) -> dict[str, Tensor]:
    """Returns the gradients of the trained tensors by name, as one device would have them; without one: left out.

    Args:
        trainer: The Trainer of this process, before the optimizer's step.
        module: The module that is trained.
    """
    if isinstance(trainer.strategy, KeepsTensorsApart):
        return trainer.strategy.trained_gradients(module)
    trained = trained_parameters(module)
    return {name: parameter.grad for name, parameter in trained.items() if parameter.grad is not None}


def whole_tensors(trainer: Trainer, module: nn.Module) -> dict[str, Tensor]:
    """Returns the trained tensors by name, as one device would have them, without a graph.

    Args:
        trainer: The Trainer of this process.
        module: The module that is trained.
    """
    if isinstance(trainer.strategy, KeepsTensorsApart):
        return trainer.strategy.trained_tensors(module)
    return {name: parameter.detach() for name, parameter in trained_parameters(module).items()}
