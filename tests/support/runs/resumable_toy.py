"""A small training with everything that logs, which can be interrupted anywhere and resumed with another split."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor
from torch import Tensor, nn
from torch.utils.data import DataLoader

from callbacks.gradient_check import GradientCheck
from callbacks.last_validation import LastValidation
from callbacks.logged_once import LoggedOnce
from callbacks.loggers import METRICS_FILE, StepMetrics
from callbacks.prompt_statistics import PromptStatistics
from callbacks.step_checkpoint import StepCheckpoint
from callbacks.task_loss import TaskLosses
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.storage.checkpoint import latest_checkpoint, step_of
from lightning_m2pt.storage.checkpoint_io import VerifiedCheckpointIO
from lightning_m2pt.tuning.losses import TaskLoss
from lightning_m2pt.tuning.sample_order import LengthGroups, OrderedSampler, ResumableLoader
from tests.callbacks.test_every_callback import ToyMethod
from tests.callbacks.test_step_checkpoint import Rows, collate

SAMPLES, BATCH_SIZE = 22, 8
STEPS_PER_EPOCH = SAMPLES // BATCH_SIZE
"""Two, and six samples of an epoch are left over."""
SAVED_EVERY = 2


class LoggingToy(LightningModule):
    """Weighs samples as the real module weighs tokens; an optimizer step's gradient is the same for every split."""

    strict_loading = False

    def __init__(self) -> None:
        super().__init__()
        self.method = ToyMethod({}).double()
        self.dropout = nn.Dropout(0.5)
        self.with_dropout = False
        self.seen: dict[int, list[str]] = {}
        self.losses: dict[int, float] = {}
        self._step_loss = 0.0

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        step, accumulate = self.trainer.global_step + 1, self.trainer.accumulate_grad_batches
        self.seen.setdefault(step, []).extend(batch.sample_ids)
        losses = self._losses(batch)
        self._step_loss += float(losses.detach().sum()) / BATCH_SIZE
        if (batch_idx + 1) % accumulate == 0:
            self.losses[step] = self._step_loss
            self.log("train/loss", self._step_loss, prog_bar=True)
            self._step_loss = 0.0
        tasks = [TaskLoss(id_[-1], float(loss.detach()), 1) for id_, loss in zip(batch.sample_ids, losses, strict=True)]
        return {"loss": losses.sum() / BATCH_SIZE * accumulate, "task_losses": tasks, "samples": len(batch)}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val/loss", self._losses(batch).mean(), batch_size=len(batch))

    def _losses(self, batch: Batch) -> Tensor:
        rows = batch.pixel_values.double() @ self.method.prompts.T
        return (self.dropout(rows) if self.with_dropout else rows).square().sum(dim=1)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW([self.method.prompts], lr=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Score(Callback):
    """Logs as ``BenchmarkScores`` does."""

    def on_train_start(self, trainer: Trainer, _: Any) -> None:
        self.last_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step != self.last_step and trainer.global_step % 3 == 0:
            self.last_step = trainer.global_step
            pl_module.log("score/toy", pl_module.method.prompts.detach().sum())


@dataclass
class Toy:
    """One training: how long, how a step is split, when it validates."""

    folder: Path
    steps: int = -1
    epochs: int = -1
    validation: dict[str, Any] = field(default_factory=lambda: {"limit_val_batches": 0})
    grouped: bool = False
    dropout: bool = False

    @property
    def table(self) -> Path:
        return self.folder / METRICS_FILE

    def train(self, micro_batches: int, first: Callback | None = None, last: Callback | None = None) -> LoggingToy:
        """Trains or goes on; callbacks stand in front of and behind those of a real run."""
        seed_everything(3, verbose=False)
        newest = latest_checkpoint(self.folder / "checkpoints")
        own = [
            LoggedOnce(),
            GradientCheck(),
            PromptStatistics(every_n_steps=2),
            TaskLosses(steps=3, every_n_steps=2),
            Score(),
            LearningRateMonitor("step"),
            LastValidation(),
        ]
        trainer = Trainer(
            accelerator="cpu",
            max_steps=self.steps,
            max_epochs=self.epochs,
            accumulate_grad_batches=micro_batches,
            callbacks=[
                *([first] if first else []),
                *own,
                StepCheckpoint(self.folder / "checkpoints", SAVED_EVERY),
                *([last] if last else []),
            ],
            plugins=[VerifiedCheckpointIO()],
            logger=[StepMetrics(self.table, step_of(newest) if newest else 0)],
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            **self.validation,
        )
        toy = LoggingToy()
        toy.with_dropout = self.dropout
        validation = DataLoader(Rows(), batch_size=11, collate_fn=collate, generator=torch.Generator())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(toy, self.loader(micro_batches), validation, ckpt_path=newest, weights_only=True)
        return toy

    def loader(self, micro_batches: int) -> ResumableLoader:
        groups = LengthGroups(numpy.arange(SAMPLES) * 7 % 5, steps=2) if self.grouped else None
        sampler = OrderedSampler(SAMPLES, 0, BATCH_SIZE, BATCH_SIZE // micro_batches, groups=groups)
        return ResumableLoader(Rows(), sampler, lambda _epoch, _step: 1, collate)


class Interrupted(BaseException):
    """Ends a training as Ctrl-C would; the state at the last step's end is saved."""


class InterruptAt(Callback):
    """Interrupts in the first call of a hook after a number of optimizer steps; keeps the module."""

    module: LoggingToy

    def __init__(self, step: int, hook: str = "on_train_batch_start") -> None:
        self.step = step

        def interrupt(trainer: Trainer, module: LoggingToy, *_: Any) -> None:
            if trainer.global_step == self.step:
                self.step, self.module = -1, module
                raise Interrupted

        setattr(self, hook, interrupt)
