"""Every value that is logged in training stands in the row of its own step, and in no other."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override


class LoggedOnce(Callback):
    """Forgets at a step's start what was logged for the steps before.

    Lightning hands a value to the loggers at every step until the epoch ends, however long ago it was logged; a run
    that is resumed in between would not, and its table would be another one. Averages over an epoch (``on_epoch``) are
    left to Lightning. It has to come before every callback that logs in ``on_train_batch_start``.
    """

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches:
            return  # inside an accumulation window
        for value in trainer.fit_loop.epoch_loop._results.values():
            if not value.meta.on_epoch:
                value.has_reset = True
