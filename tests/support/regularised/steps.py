"""Steps for terms of the loss: batches that count their pictures, steps in parts, and what a step has logged."""

from dataclasses import replace

import torch
from lightning.pytorch import Callback

from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.testing.random_backbone import random_batch
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.regularisers.base import Regulariser
from tests.support.small_training import module_with, one_step

BORDER = 0.25
DELTA = "method.pixel_prompt.delta"


def with_counts(batches: list[Batch]) -> list[Batch]:
    """The micro-batches of one step as a loader would give them."""
    counted = []
    for batch in one_step(batches):
        pictures = (batch.input_ids == IMAGE_TOKEN_ID).sum(dim=1).tolist()
        counted.append(replace(batch, picture_counts=pictures, answers=[("red",)] * len(batch)))
    return [replace(batch, step_pictures=sum(sum(each.picture_counts) for each in counted)) for batch in counted]


def several_pictures(seed: int = 0) -> Batch:
    """Three samples, of two, one and no picture."""
    batch = random_batch(3, text=10, seed=seed)
    ids, spans = batch.input_ids.clone(), batch.spans.clone()
    ids[0, 3], spans[0, 3] = IMAGE_TOKEN_ID, int(Span.IMAGE)
    ids[2, 1], spans[2, 1] = 7, int(Span.QUESTION)
    return replace(batch, input_ids=ids, spans=spans)


def parts_of(batch: Batch, size: int) -> list[Batch]:
    """A step's samples in micro-batches of so many."""
    parts = []
    for begin in range(0, len(batch), size):
        chosen = slice(begin, begin + size)
        parts.append(
            replace(
                batch,
                pixel_values=batch.pixel_values[chosen],
                input_ids=batch.input_ids[chosen],
                labels=batch.labels[chosen],
                spans=batch.spans[chosen],
                sample_ids=batch.sample_ids[chosen],
                tasks=batch.tasks[chosen],
            )
        )
    return with_counts(parts)


class Logged(Callback):
    """Keeps what every step has logged."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def prompted(folder, method, *terms: Regulariser, scale: float = 0.3, **settings) -> TuningModule:
    """A module whose pixel prompt is no longer zero."""
    module = module_with(folder, method, regularisers=terms, **settings)
    prompt = module.backbone.attachment.pixel_prompt
    with torch.no_grad():
        prompt.delta.add_(scale * torch.randn(prompt.delta.shape, generator=torch.Generator().manual_seed(5)))
    module.check()
    return module


def distances(module: TuningModule, batch: Batch, compose: str, *, relative: bool) -> list[float]:
    """Of each picture, from two passes with nothing shared with the code under test but the backbone."""
    backbone, attached = module.backbone, module.backbone.attachment
    with torch.no_grad():
        shown = backbone.connected_rows(batch.pixel_values)
        pixels = batch.pixel_values
        if compose == "shrink":
            prompt = attached.pixel_prompt
            zeros = PixelPrompting(BORDER, compose="shrink")
            zeros.build(backbone, torch.Generator())
            pixels = zeros.pixel_prompt(pixels)
            assert not zeros.pixel_prompt.delta.any()
            assert prompt.delta.any()
        backbone.attachment = replace(attached, pixel_prompt=None)
        clean = backbone.connected_rows(pixels)
        backbone.attachment = attached
    found = []
    for with_prompt, without in zip(shown.rows.split(shown.counts), clean.rows.split(clean.counts), strict=True):
        patches = clean.spans[: len(without)] == Span.PATCH
        norms = (with_prompt[patches] - without[patches]).square().sum(dim=1).sqrt()
        scale = without[patches].square().sum(dim=1).sqrt().mean() if relative else 1.0
        found.append(float(norms.mean() / scale))
    return found
