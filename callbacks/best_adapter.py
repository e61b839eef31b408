import math
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.adapter_folder import declared_tensors
from lightning_m2pt.storage.checkpoint_content import bad_checkpoint, check_tensor
from lightning_m2pt.tuning.step_boundary import StepBoundary

SCORE, LOSS = "score/", "loss"
GREATER_IS_BETTER = ("val/answer_accuracy", SCORE)


class BestAdapter(Callback):
    """Keeps the tuned tensors of the step at which a number was best; among equals it is the earliest step.

    The run writes them as ``adapter_best`` beside ``adapter``, which is always of the last step. They are part of every
    checkpoint, so a run that was stopped ends with the same ones; what is not finite is never best. In an experiment's
    file, under ``trainer.callbacks``:
    ``{class_path: callbacks.best_adapter.BestAdapter, init_args: {monitor: val/loss, evaluated: best}}``.

    Args:
        monitor: ``val/loss``, ``val/answer_accuracy``, or ``score/SET`` of a set that ``BenchmarkScores`` answers. That
            one chooses on a set to be evaluated on, and every table of the run says so.
        mode: Whether the least or the greatest number is best; null decides by the monitor's name.
        evaluated: Which adapter the run's own evaluation, and every command on the run, takes.

    Raises:
        BadInputError: If nothing says whether the least or the greatest number is best.
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] | None = None,
        evaluated: Literal["best", "last"] = "last",
    ) -> None:
        if mode is None and not monitor.endswith(LOSS) and not monitor.startswith(GREATER_IS_BETTER):
            raise BadInputError(
                f"nothing says what is a good {monitor!r:.40}",
                where="trainer.callbacks.BestAdapter.mode",
                expected="min or max",
            )
        self.monitor = monitor
        self.mode = mode
        self.evaluated = evaluated
        self.is_less_better = mode == "min" if mode is not None else monitor.endswith(LOSS)
        self._steps = StepBoundary()
        self._begin()

    def _begin(self) -> None:
        self.step = 0
        self.value = math.inf if self.is_less_better else -math.inf
        self.tensors: dict[str, Tensor] = {}

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forgets an earlier run with the same object; Lightning loads a checkpoint's state after this."""
        if stage == "fit":
            self._begin()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._steps.begin(trainer)
        self._refuse_other_state(pl_module)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Behind BenchmarkScores: a score that is seen at the next step would be taken for that of other tensors.
        if self._steps.is_reached(trainer):
            self._look(trainer, pl_module)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._look(trainer, pl_module)

    def chosen(self, steps: int) -> dict[str, Any]:
        """Returns what the best adapter's files say of it.

        Args:
            steps: Optimizer steps of the run.
        """
        value = self.value if self.tensors else None
        return {"step": self.step, "steps": steps, "by": self.monitor, "value": value}

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "value": self.value, "tensors": dict(self.tensors)}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step, self.value, self.tensors = (state_dict.get(key) for key in ("step", "value", "tensors"))  # type: ignore[assignment]

    def _look(self, trainer: Trainer, pl_module: Any) -> None:
        # A number that was looked at before may be here again, from an earlier step: it is not better than itself.
        measured = trainer.callback_metrics.get(self.monitor)
        if measured is None:
            return
        value = trainer.strategy.broadcast(float(measured))  # of one process for all
        if math.isfinite(value) and (value < self.value if self.is_less_better else value > self.value):
            self.step, self.value = trainer.global_step, value
            self.tensors = {name: tensor.clone() for name, tensor in declared_tensors(pl_module.method).items()}

    def _refuse_other_state(self, pl_module: Any) -> None:
        """Compares what a checkpoint holds as the best adapter with the tensors that are trained.

        Raises:
            BadInputError: If it is of another form.
        """
        if type(self.step) is not int or type(self.value) is not float or not isinstance(self.tensors, dict):
            raise bad_checkpoint("the best adapter is of another form", "a step, a number and tensors")
        trained = declared_tensors(pl_module.method)
        if not self.tensors:
            return
        if set(self.tensors) != set(trained):
            raise bad_checkpoint("the best adapter has other tensors", "those that are trained")
        for name, tensor in trained.items():
            check_tensor(f"the best adapter's {name}", self.tensors[name], torch.empty_like(tensor))
