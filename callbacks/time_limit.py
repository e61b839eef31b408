import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Timer
from typing_extensions import override

from lightning_m2pt.tuning.step_boundary import StepBoundary


class OutOfTime(Exception):
    """A run has had the time it was given; its last whole step is saved."""


class TimeLimit(Callback):
    """Stops a run after the optimizer step in which its time is over, as a scheduler's signal does.

    Lightning's own Timer stops inside a step, validates once more, and counts the time of all starts together, so that
    a run that has stopped stops again at once. Here every start has the whole time, and makes at least one step.

    Args:
        duration: The time; text is days, hours, minutes and seconds, ``DD:HH:MM:SS``.
        stop: Asks the checkpoint callback to save after this step and then to raise what it is given.

    Raises:
        lightning.pytorch.utilities.exceptions.MisconfigurationException: If the text is no time.
    """

    def __init__(self, duration: str | timedelta | dict[str, int], stop: Callable[[Exception], None]) -> None:
        self.seconds = Timer(duration=duration).time_remaining() or 0.0
        self.stop = stop
        self._began = time.monotonic()
        self._steps = StepBoundary()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.monotonic()
        self._steps.begin(trainer)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._steps.is_reached(trainer):
            return
        # One clock for all processes: they have to stop after the same step.
        if trainer.strategy.broadcast(time.monotonic() - self._began >= self.seconds):
            self.stop(OutOfTime(f"out of time after step {self._steps.step}, state saved: the same command goes on"))
