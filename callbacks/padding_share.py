"""How much of what is computed is padding."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_m2pt.inputs.batch import Batch, Span
from lightning_m2pt.inputs.splice import splice
from lightning_m2pt.tuning.step_boundary import StepBoundary


class PaddingShare(Callback):
    """Logs the share of padded rows among all rows of an optimizer step, as 0..1.

    Rows are those of the batches over all micro-batches and devices: the pictures' rows count, learned rows in front of
    the sequence do not. ``model.shortcuts`` leave some of them out, padding among them.
    """

    def __init__(self) -> None:
        self._rows: Tensor | None = None
        self._steps = StepBoundary()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._steps.begin(trainer)

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        rows = padded_and_all_rows(batch, pl_module.backbone.rows_of_runs(batch.pixel_values, batch.picture_sizes))
        self._rows = rows if self._rows is None else self._rows + rows
        if not self._steps.is_reached(trainer):
            return
        padded, total = trainer.strategy.reduce(self._rows, reduce_op="sum")
        self._rows = None
        pl_module.log("train/padding", padded / total, rank_zero_only=True)


def padded_and_all_rows(batch: Batch, rows_of_runs: Sequence[int]) -> Tensor:
    """Returns (2,) int64 on the batch's device: how many rows are padding, and how many there are.

    Args:
        batch: A micro-batch.
        rows_of_runs: Rows that take the place of each placeholder.
    """
    order = splice(batch.input_ids, batch.spans != Span.PADDING, rows_of_runs).order
    real = (batch.spans != Span.PADDING).sum() + sum(rows_of_runs) - len(rows_of_runs)
    return torch.stack([order.numel() - real, real.new_tensor(order.numel())])
