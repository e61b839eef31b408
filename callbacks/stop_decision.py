from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from torch import Tensor
from typing_extensions import override


class StopDecision(Callback):
    """Keeps with the training state what callbacks decide by, and that one has ended the run early, and why.

    Lightning forgets both when a run is resumed: one killed between the decision and its last file would train on, and
    at an epoch's end ``train/loss`` of a step made before the kill would be missing.
    """

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self._reason: str | None = None
        self._metrics: dict[str, Tensor] = {}

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer = trainer
        if stage == "fit":
            for stopping in early_stoppings(trainer):
                begin_anew(stopping)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self._reason is not None
        trainer._logger_connector._callback_metrics.update(self._metrics)

    def reason(self) -> str | None:
        """Returns why the run ends early, or None as long as nothing has decided that."""
        trainer = self._trainer
        if self._reason is None and trainer is not None and trainer.should_stop:
            messages = [callback.stopping_reason_message for callback in early_stoppings(trainer)]
            self._reason = next(filter(None, messages), "a callback set should_stop")
        return self._reason

    @override
    def state_dict(self) -> dict[str, Any]:
        # Asked for when the state is noted: after the step's hooks of all others.
        metrics = self._trainer.callback_metrics if self._trainer is not None else {}
        return {"reason": self.reason(), "metrics": {name: value.clone() for name, value in metrics.items()}}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._reason, self._metrics = state_dict["reason"], state_dict["metrics"]


def early_stoppings(trainer: Trainer) -> list[EarlyStopping]:
    """Returns a Trainer's EarlyStopping callbacks."""
    return [callback for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]


def begin_anew(stopping: EarlyStopping) -> None:
    """Lets an object that has watched another run count from nothing, as the class's constructor does.

    Lightning keeps what it has counted: the next run would end after fewer steps. A checkpoint's state comes after it.
    """
    stopping.wait_count = stopping.stopped_epoch = 0
    stopping.stopping_reason, stopping.stopping_reason_message = EarlyStoppingReason.NOT_STOPPED, None
    stopping.best_score = torch.tensor(torch.inf if stopping.monitor_op is torch.lt else -torch.inf)
