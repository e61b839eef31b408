"""A random backbone under the real module and Lightning's Trainer, without files; and AdamW written by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_m2pt.inputs.batch import IGNORED_LABEL, Batch
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.trained_parameters import freeze_all_but_declared, trained_parameters
from lightning_m2pt.parallel.whole_tensors import whole_gradients
from lightning_m2pt.testing.random_backbone import random_backbone
from lightning_m2pt.tuning.module import TuningModule


def module_with(folder: Path, method: Method, **settings: Any) -> TuningModule:
    """Returns a module whose method is built and attached; its numbers do not change from call to call."""
    backbone = random_backbone(folder)
    method.check(backbone.shape)
    method.build(backbone, torch.Generator().manual_seed(7))
    module = TuningModule(backbone, method, **settings)
    freeze_all_but_declared(module, method)
    method.attach(backbone)
    return module


def small_trainer(*callbacks: Callback, **settings: Any) -> Trainer:
    """Returns a Trainer on the CPU that writes nothing."""
    return Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **settings,
    )


def loader_of(batches: Sequence[Batch]) -> DataLoader[Batch]:
    """Returns a loader of ready batches, in order."""
    return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch, generator=torch.Generator())


def one_step(batches: Sequence[Batch]) -> list[Batch]:
    """Returns the micro-batches of one optimizer step, each with the number of the step's supervised tokens."""
    tokens = sum(int((batch.labels != IGNORED_LABEL).sum()) for batch in batches)
    return [replace(batch, step_supervised_tokens=tokens) for batch in batches]


class Gradients(Callback):
    """Keeps every trained tensor at the start, and its gradients before they are clipped, step by step."""

    def __init__(self) -> None:
        self.start: dict[str, Tensor] = {}
        self.steps: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.start = {name: each.detach().double().clone() for name, each in trained_parameters(pl_module).items()}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        gradients = whole_gradients(trainer, pl_module)
        self.steps.append(
            {
                name: gradients.get(name, torch.zeros_like(each)).double().clone()
                for name, each in trained_parameters(pl_module).items()
            }
        )


def adamw_by_hand(
    start: Tensor,
    gradients: Sequence[Tensor],
    rates: Sequence[float],
    betas: tuple[float, float],
    epsilon: float,
    weight_decay: float,
) -> Tensor:
    """Returns a tensor after some steps of AdamW (Loshchilov and Hutter, ICLR 2019, algorithm 2), in float64."""
    value = start.double().clone()
    first, second = torch.zeros_like(value), torch.zeros_like(value)
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        unbiased_first, unbiased_second = first / (1 - betas[0] ** step), second / (1 - betas[1] ** step)
        value = value - rate * (unbiased_first / (unbiased_second.sqrt() + epsilon) + weight_decay * value)
    return value
