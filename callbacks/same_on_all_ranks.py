"""Several processes train one model: a strategy under which they do not is refused before the first update."""

from collections.abc import Mapping
from typing import Any

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.parallel.whole_tensors import whole_gradients, whole_tensors
from lightning_m2pt.system.tensor_hashes import hash_tensors
from lightning_m2pt.tuning.step_boundary import StepBoundary
from lightning_m2pt.visible_text import counted


class SameOnAllRanks(Callback):
    """Compares the processes of a training, all of which decide alike; a single process does nothing.

    Before the first step the trained tensors have to be the same, before the first update their gradients: ranks see
    other samples, so equal gradients have been exchanged. Every so many steps, and at the end, before an adapter is
    saved, the trained tensors are compared again.

    Args:
        every_n_steps: Optimizer steps between two comparisons; each copies the trained tensors to the CPU.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._gradients_are_proven = False
        self._steps = StepBoundary()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._steps.begin(trainer)
        if trainer.world_size > 1:
            require_same(trainer, "trained tensors", whole_tensors(trainer, pl_module))

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if trainer.world_size == 1 or self._gradients_are_proven:
            return
        require_same(trainer, "gradients", whole_gradients(trainer, pl_module))
        self._gradients_are_proven = True

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._steps.is_reached(trainer) or trainer.world_size == 1 or trainer.global_step % self.every_n_steps:
            return
        require_same(trainer, "trained tensors", whole_tensors(trainer, pl_module))

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size > 1:
            require_same(trainer, "trained tensors", whole_tensors(trainer, pl_module))


def require_same(trainer: Trainer, what: str, tensors: Mapping[str, Tensor]) -> None:
    """Compares tensors over all ranks; every rank has to call it.

    Args:
        trainer: The Trainer of this process.
        what: What the tensors are, for the message.
        tensors: This rank's tensors by name.

    Raises:
        BadInputError: On all ranks, if those of one differ from the first one's, or the processes are not connected.
    """
    strategy = type(trainer.strategy).__name__
    if not torch.distributed.is_initialized():
        raise BadInputError(
            f"{strategy} has {trainer.world_size} processes that are not connected",
            where="trainer.strategy",
            expected="a strategy in which processes train together, such as ddp",
        )
    hashes: list[str] = [""] * trainer.world_size
    torch.distributed.all_gather_object(hashes, hash_tensors(tensors))
    other = [str(rank) for rank, found in enumerate(hashes) if found != hashes[0]]
    if not other:
        return
    step = trainer.global_step
    raise BadInputError(
        f"under {strategy} the {what} of rank {counted(other)} differ from those of rank 0 at step {step}",
        where="trainer.strategy",
        expected=f"the same {what} on all {trainer.world_size} ranks",
        hint="each rank would train a model of its own, or has only a part of it; use ddp",
    )
