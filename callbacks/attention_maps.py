from collections.abc import Sequence
from typing import Any

import numpy
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from typing_extensions import override

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch, Span
from lightning_m2pt.inputs.collate import encoded_sample
from lightning_m2pt.inspection.activation import Activations, activations, span_means
from lightning_m2pt.inspection.attention import capture_attention
from lightning_m2pt.inspection.named_maps import LayerAttention, SampleAttention
from lightning_m2pt.inspection.span_colours import SPAN_COLOURS
from lightning_m2pt.tuning.step_boundary import StepBoundary

CELL_HEIGHT, CELL_WIDTH, GAP = 16, 8, 4
MOST_WIDTH = 16_000
"""Pixels of a picture's width; with more columns than fit, cells become narrower."""
WHITE = 255


class AttentionMaps(Callback):
    """Logs the activation of all columns to TensorBoard, on the same samples every time.

    Off unless an experiment names it: ``--trainer.callbacks+=callbacks.attention_maps.AttentionMaps``. It costs one
    forward pass of the samples each time and changes nothing that is trained. Every process computes it, because a
    sharded model needs them all; the first one writes.

    Args:
        every_n_steps: Optimizer steps between two maps; one comes before the first step.
        samples: How many of the first validation samples, or training samples where there are none, are shown.

    Raises:
        BadInputError: If a number is out of range.
    """

    def __init__(self, every_n_steps: int = 100, samples: int = 2) -> None:
        for key, value in (("every_n_steps", every_n_steps), ("samples", samples)):
            if value < 1:
                raise BadInputError(
                    f"{value} is too few", where=f"trainer.callbacks.AttentionMaps.{key}", expected="at least 1"
                )
        self.every_n_steps = every_n_steps
        self.samples = samples
        self._batch: Batch | None = None
        self._steps = StepBoundary()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batch = first_samples(trainer.datamodule, self.samples)  # type: ignore[attr-defined]
        self._steps.begin(trainer)
        self._log(trainer, pl_module)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._steps.is_reached(trainer) and trainer.global_step % self.every_n_steps == 0:
            self._log(trainer, pl_module)

    def _log(self, trainer: Trainer, pl_module: Any) -> None:
        assert self._batch is not None
        captured = capture_attention(pl_module.backbone, self._batch.to(pl_module.device))
        boards = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if trainer.is_global_zero:
            for board in boards:
                for name, attention in zip(self._batch.sample_ids, captured, strict=True):
                    log_sample(board, name, attention, trainer.global_step)


def first_samples(data: Any, number: int) -> Batch:
    """Returns the first validation samples with their answers, or training samples, read past every loader.

    Args:
        data: The tuned data module, connected.
        number: How many at most.
    """
    training, validation = data.read_once()
    chosen = (validation or training)[:number]
    texts = data.processor.encode_all(chosen, data.template)
    encoded = [
        encoded_sample(sample, text, data.processor, sample.source) for sample, text in zip(chosen, texts, strict=True)
    ]
    batch = data.collator(encoded)
    assert isinstance(batch, Batch)
    return batch


def log_sample(board: Any, name: str, attention: SampleAttention, step: int) -> None:
    """Logs one sample: a picture for decoder and tower, and each span's mean as a number.

    Args:
        board: TensorBoard's writer.
        name: The sample's id.
        attention: Its attention; of several pictures, and of several tiles of one, the first is shown.
        step: Optimizer steps done.
    """
    parts: dict[str, Sequence[LayerAttention]] = {"language": attention.language}
    if attention.vision:
        parts["vision"] = attention.vision[0]
    for part, layers in parts.items():
        found = activations(layers)
        board.add_image(f"attention/{part}/{name}", activation_image(found), step, dataformats="HWC")
        for span, mean in span_means(found.average, found.spans).items():
            board.add_scalar(f"attention/{part}/{span.name.lower()}/{name}", mean, step)


def activation_image(found: Activations) -> numpy.ndarray:
    """Returns (H, W, 3) uint8: the spans' colours above, then layers, then their mean; the brighter, the more.

    The scale ends at the 98th percentile of all cells, so that one column that takes most does not darken the others.
    """
    import matplotlib

    table = torch.cat([found.values, found.average[None]]).nan_to_num().numpy()
    highest = float(numpy.quantile(table, 0.98)) or 1.0
    cells = matplotlib.colormaps["cividis"](numpy.clip(table / highest, 0, 1))[..., :3]
    cells = (cells * 255).round().astype(numpy.uint8)
    spans = [SPAN_COLOURS[Span(number)] for number in found.spans.tolist()]
    band = numpy.array([[int(colour[start : start + 2], 16) for start in (1, 3, 5)] for colour in spans], numpy.uint8)
    width = max(1, min(CELL_WIDTH, MOST_WIDTH // len(spans)))
    space = numpy.full((GAP, len(spans) * width, 3), WHITE, numpy.uint8)
    rows = [enlarged(part, width) for part in (band[None], cells[:-1], cells[-1:])]
    return numpy.concatenate([rows[0], space, rows[1], space, rows[2]])


def enlarged(cells: numpy.ndarray, width: int) -> numpy.ndarray:
    """Returns (h, w, 3) cells as blocks of equal pixels."""
    return cells.repeat(CELL_HEIGHT, axis=0).repeat(width, axis=1)
