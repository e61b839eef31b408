"""Saves training state at optimizer-step boundaries, and only there."""

import logging
import signal
from pathlib import Path
from typing import Any

import torch.distributed
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from typing_extensions import override

from lightning_m2pt.errors import BadInputError, DivergedError, EnvironmentFailure
from lightning_m2pt.storage.checkpoint import step_folder
from lightning_m2pt.storage.checkpoint_content import bad_checkpoint
from lightning_m2pt.system.stop_signals import StopSignals
from lightning_m2pt.tuning.boundary_state import RNG_KEY, completed_state, noted_state
from lightning_m2pt.tuning.loop_counters import (
    close_finished_loop,
    open_finished_loop,
    recount_micro_batches,
    repeat_what_follows_the_step,
)
from lightning_m2pt.tuning.rng import restore_rng
from lightning_m2pt.tuning.step_boundary import StepBoundary

STATE_ALREADY_LOST = (DivergedError, EnvironmentFailure)
"""After these nothing is written: the next step would diverge again, or there is no room to write to."""

log = logging.getLogger(__name__)


class StepCheckpoint(Checkpoint):
    """Saves every n optimizer steps, at the end, on an exception, and when a signal asks the process to stop.

    After each optimizer step counters, loader position and random generators are noted down. Tensors change in the
    optimizer only, so until the next update begins the note and they are the exact state at the boundary, whatever
    happened since; they are read, and gathered where ranks share them out, when a checkpoint is due. An interrupted run
    resumes bit for bit: also with another split of the step into micro-batches and devices, and with the validation
    that follows the step.

    On SIGINT, SIGTERM, SIGUSR1 (SLURM's warning) and SIGHUP (a connection that is gone) the current step is finished
    and saved, and the process ends with 128 plus the signal's number. A second signal ends it at once.

    Args:
        checkpoints_dir: Where the run's checkpoints are.
        every_n_steps: Optimizer steps between two checkpoints.

    Raises:
        BadInputError: If the interval is not positive.
    """

    def __init__(self, checkpoints_dir: Path, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise BadInputError(f"the interval is {every_n_steps} steps", where="every_n_steps", expected="at least 1")
        self.checkpoints_dir = Path(checkpoints_dir)
        self.every_n_steps = every_n_steps
        self._steps = StepBoundary()
        self._noted: dict[str, Any] | None = None
        self._saved_step = 0
        self._may_validate_again = False
        self._was_finished = self._optimizers_are_made = self._is_opened = False
        self._rng_to_restore: dict[str, Any] | None = None
        self._due = False
        self._stopping = False
        self._signals = StopSignals()
        self._raised_when_saved: Exception | None = None

    def stop(self, raised: Exception) -> None:
        """Asks for a stop at the next boundary: the state is saved, and then this is raised; on every rank alike."""
        self._raised_when_saved = raised

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        states = checkpoint.get(RNG_KEY)
        if not isinstance(states, list):
            raise bad_checkpoint(f"{RNG_KEY} is {states!r:.40}", "a list of states, one a rank")
        self._saved_step = checkpoint["global_step"]
        recount_micro_batches(checkpoint, trainer.accumulate_grad_batches)
        if trainer.global_rank < len(states):  # a run resumed on more devices has no state for the new ones
            self._rng_to_restore = states[trainer.global_rank]
        self._was_finished = self._saved_step == trainer.max_steps
        self._open_if_finished(trainer)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._optimizers_are_made = True
        self._open_if_finished(trainer)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._steps.begin(trainer)
        self._signals.take_over()
        # Here and nowhere else: earlier, making the loader's iterator would draw from the restored generator; later,
        # in on_train_batch_start, the first draws of a new epoch would be over.
        if self._rng_to_restore is not None:
            restore_rng(self._rng_to_restore)
            self._rng_to_restore = None
        if self._saved_step and not repeat_what_follows_the_step(trainer):
            self._close_if_opened(trainer)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._steps.is_reached(trainer):
            return
        self._noted = noted_state(trainer)
        self._may_validate_again = False
        if trainer.strategy.reduce_boolean_decision(bool(self._signals.received), all=False):
            self._stopping = True
            self._raised_when_saved = None
        self._stopping = self._stopping or self._raised_when_saved is not None
        self._due = self._stopping or self._steps.step % self.every_n_steps == 0

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._save_if_due(trainer)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close_if_opened(trainer)
        self._may_validate_again = True
        self._save_if_due(trainer)

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        # From here on tensors change: the note no longer holds until the next boundary. Whatever refuses the update
        # (the gradient check) does so in this hook of an earlier callback.
        self._noted = None

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)
        self._signals.give_back()
        if self._signals.received:
            self._stop()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._signals.give_back()
        if isinstance(exception, STATE_ALREADY_LOST) or trainer.world_size > 1:
            return  # with several processes, waiting for one that died would hang
        self._save(trainer)

    def _open_if_finished(self, trainer: Trainer) -> None:
        # Some strategies read a checkpoint before the optimizers are made, from whose schedules the limit must be kept,
        # and some after that.
        if self._was_finished and self._optimizers_are_made and not self._is_opened:
            open_finished_loop(trainer)
            self._is_opened = True

    def _close_if_opened(self, trainer: Trainer) -> None:
        if self._is_opened:
            close_finished_loop(trainer)
            self._is_opened = self._was_finished = False

    def _save_if_due(self, trainer: Trainer) -> None:
        if self._due:
            self._save(trainer)
            self._due = False
        if self._stopping and self._raised_when_saved is not None:
            raise self._raised_when_saved
        if self._stopping:
            self._stop()

    def _stop(self) -> None:
        number = self._signals.received = self._signals.received or signal.SIGTERM  # another rank may have got it
        log.warning(
            "stopped by %s after step %d, state saved: the same command goes on",
            signal.Signals(number).name,
            self._steps.step,
        )
        raise SystemExit(self._signals.exit_code)

    def _save(self, trainer: Trainer) -> None:
        if self._noted is None or self._saved_step == self._steps.step or not self._is_logged(trainer):
            return
        checkpoint = completed_state(trainer, self._noted)
        checkpoint[RNG_KEY] = gather_states(self._noted[RNG_KEY], trainer.world_size)
        trainer.strategy.save_checkpoint(checkpoint, step_folder(self.checkpoints_dir, self._steps.step))
        self._saved_step = self._steps.step
        trainer.strategy.barrier("StepCheckpoint")

    def _is_logged(self, trainer: Trainer) -> bool:
        # What a checkpoint counts as done is in the loggers, too. Lightning counts a step here once it has logged the
        # step's metrics and made its validation.
        return self._may_validate_again or trainer.fit_loop.epoch_loop._batches_that_stepped == self._steps.step


def gather_states(state: dict[str, Any], world_size: int) -> list[dict[str, Any]]:
    """Returns the states of all ranks, in order of rank; every rank has to call it."""
    if world_size == 1:
        return [state]
    states: list[dict[str, Any]] = [{}] * world_size
    torch.distributed.all_gather_object(states, state)
    return states
