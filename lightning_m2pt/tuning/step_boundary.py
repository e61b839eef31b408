"""Where an optimizer step ends among the micro-batches that Lightning calls hooks for."""

from lightning.pytorch import Trainer


class StepBoundary:
    """Tells in ``on_train_batch_end``, which is called for every micro-batch, whether an optimizer step has ended.

    Inside an accumulation window Lightning's count of steps stands still; it moves with the optimizer's step, before
    this hook.

    Attributes:
        step: The number of optimizer steps that had been made when a boundary was last seen.
    """

    def __init__(self) -> None:
        self.step = 0

    def begin(self, trainer: Trainer) -> None:
        """Starts at the step where the training, new or resumed, starts; to be called in ``on_train_start``."""
        self.step = trainer.global_step

    def is_reached(self, trainer: Trainer) -> bool:
        """Tells whether a step has ended since the last call; to be called once for every micro-batch."""
        if trainer.global_step == self.step:
            return False
        self.step = trainer.global_step
        return True
