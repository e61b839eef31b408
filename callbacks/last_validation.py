import math

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override


class LastValidation(Callback):
    """Lets a run validate after its last step, wherever its interval would have put the next validation.

    Lightning counts micro-batches from the start of an epoch, or of the run, and a last step that is no multiple goes
    without. Its own settings are changed at that step, so that everything else of a validation is Lightning's: what is
    logged stands in the step's row, and callbacks that wait for a validation get it.

    Attributes:
        step: Optimizer steps made before the newest validation.
        measured: What it measured, by name. Empty where an adapter that is loaded again would not measure the same on
            these records: before any validation, in mixed precision, or where it is not finite.
    """

    def __init__(self) -> None:
        self.step = 0
        self.measured: dict[str, float] = {}
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
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        found = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        is_as_alone = trainer.precision == "32-true" and all(map(math.isfinite, found.values()))
        self.step, self.measured = trainer.global_step, found if is_as_alone else {}

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._interval is not None:
            trainer.val_check_batch, trainer.check_val_every_n_epoch = self._interval
            self._interval = None

    def _make_due(self, trainer: Trainer) -> None:
        if trainer.global_step == self._last_step and self._interval is None:
            self._interval = trainer.val_check_batch, trainer.check_val_every_n_epoch
            trainer.val_check_batch, trainer.check_val_every_n_epoch = 1, None
