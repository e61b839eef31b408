from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_m2pt.errors import EnvironmentFailure


class LockCheck(Callback):
    """Makes sure around every batch that no other process works on the same files; put it before whatever writes.

    Args:
        check: Raises if one does.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self.check = check

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._check(trainer)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._check(trainer)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer)

    @override
    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        try:
            self.check()
        except EnvironmentFailure:
            trainer.loggers = []  # or they would write what they still hold
            raise
