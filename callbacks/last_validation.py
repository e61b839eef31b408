from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override


class LastValidation(Callback):
    """Lets a run validate after its last step, wherever its interval would have put the next validation.

    Lightning counts micro-batches from the start of an epoch, or of the run, and a last step that is no multiple goes
    without. Its own settings are changed at that step, so that everything else of a validation is Lightning's: what is
    logged stands in the step's row, and callbacks that wait for a validation get it.
    """

    def __init__(self) -> None:
        self._last_step: float = 0
        self._interval: tuple[float | None, int | None] | None = None

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not later: where all steps are made already, StepCheckpoint raises their limit to get to what follows them.
        self._last_step = trainer.estimated_stepping_batches

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._make_due(trainer)  # the run may have been stopped at its last step

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self._make_due(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._interval is not None:
            trainer.val_check_batch, trainer.check_val_every_n_epoch = self._interval
            self._interval = None

    def _make_due(self, trainer: Trainer) -> None:
        if trainer.global_step == self._last_step and self._interval is None:
            self._interval = trainer.val_check_batch, trainer.check_val_every_n_epoch
            trainer.val_check_batch, trainer.check_val_every_n_epoch = 1, None
