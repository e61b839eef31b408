"""Steps of the project's own module under Lightning's Trainer: by strategy, type of the weights and compiler.

M2PT as the paper has it (the head frozen, clipping, AdamW, a schedule), from random weights drawn on the device.
Loggers and callbacks are left out; `benchmarks/training/overhead.py` measures them. Where kept activations do not fit,
the cell is measured again with recomputed ones, and says so.
"""

import gc
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.strategies import Strategy
from torch.utils.data import DataLoader

from benchmarks.training.gpu_setting import Setting
from benchmarks.training.inputs import batch_of, random_backbone
from benchmarks.training.lengths import LENGTHS, ideal_flops, padding_share
from benchmarks.training.sizes import TrainingSize
from benchmarks.training.timing import wait_for
from lightning_m2pt.backbones.quantised import Quantization
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.optimizer import AdamW
from lightning_m2pt.tuning.self_test import Use

log = logging.getLogger(__name__)
LEARNING_RATE = 7e-4
Keep = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Form:
    """How a step is made.

    Attributes:
        name: What the tables call it.
        strategy: Makes Lightning's strategy, or its short name.
        quantization: Of the decoder's layers.
        is_compiled: Whether layers are compiled.
    """

    name: str
    strategy: Callable[[], Strategy | str] = lambda: "auto"
    quantization: Quantization | None = None
    is_compiled: bool = False


@dataclass(frozen=True)
class Cell:
    """A batch that is stepped over again and again.

    Attributes:
        size: With the batch's number of samples.
        kind: Of its lengths.
    """

    size: TrainingSize
    kind: str

    def row(self) -> dict[str, Any]:
        """Returns what the row of this cell begins with."""
        lengths = LENGTHS[self.kind](self.size)
        return {
            "batch": self.size.batch,
            "lengths": self.kind,
            "padding_share": padding_share(self.size, lengths),
            "ideal_flops": ideal_flops(self.size, lengths, trained_head=False),
        }

    def batch(self, device: str, dtype: torch.dtype) -> Batch:
        """Returns the batch on the device."""
        batch = batch_of(self.size, LENGTHS[self.kind](self.size), device)
        batch.pixel_values = batch.pixel_values.to(dtype)
        return batch


class MeasuredModule(TuningModule):
    """Says what the comparison with the library came to, and goes on: random weights let rounding grow in bfloat16."""

    compared = "not compared"

    def compare_with_library(self, use: Use) -> None:
        """Compares."""
        try:
            super().compare_with_library(use)
            self.compared = "agrees"
        except BadInputError as error:
            self.compared = error.what
            log.warning("compared with the library: %s", error.what)


class CellClock(Callback):
    """Seconds of each step, and the peak of each cell's memory.

    Args:
        cells: In the order in which they run.
        setting: Device, and steps of each cell.
        keep: Is given each cell's row at the end of its last step.
    """

    def __init__(self, cells: Sequence[Cell], setting: Setting, keep: Keep) -> None:
        self.cells, self.setting, self.keep = cells, setting, keep
        self.done = 0
        self._seconds: list[float] = []
        self._started = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Starts the clock, and counts the memory's peak anew with every cell."""
        if not self._seconds and self.setting.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        wait_for(self.setting.device)
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Reads the clock once the device has nothing left to do."""
        wait_for(self.setting.device)
        self._seconds.append(time.perf_counter() - self._started)
        if len(self._seconds) < self.setting.warm_up + self.setting.repeats:
            return
        timed = sorted(self._seconds[self.setting.warm_up :])
        cell = self.cells[self.done]
        peak = torch.cuda.max_memory_allocated() if self.setting.device == "cuda" else None
        rate = cell.size.batch / timed[len(timed) // 2]
        compared = pl_module.compared if isinstance(pl_module, MeasuredModule) else ""
        self.keep(cell.row() | {"samples_per_second": rate, "peak_bytes": peak, "compared": compared})
        self.done, self._seconds = self.done + 1, []


def run_cells(form: Form, cells: Sequence[Cell], setting: Setting, recomputes: bool, keep: Keep) -> int:
    """Steps over cells with one model; returns how many were done when memory ended, or all."""
    seed_everything(0, verbose=False)
    backbone = random_backbone(
        setting.size,
        setting.device,
        "bfloat16",
        recomputes=recomputes,
        compile_backend=setting.compiler if form.is_compiled else None,
        quantization=form.quantization,
    )
    method = M2PT(setting.size.visual_length, setting.size.textual_length)
    module = MeasuredModule(backbone, method, AdamW(LEARNING_RATE))
    steps = setting.warm_up + setting.repeats
    batches = [batch for cell in cells for batch in [cell.batch(setting.device, backbone.dtype)] * steps]
    clock = CellClock(cells, setting, lambda row: keep({"step": form.name, "recomputes": recomputes, **row}))
    trainer = Trainer(
        accelerator="gpu" if setting.device == "cuda" else "cpu",
        devices=1,
        strategy=form.strategy(),
        max_steps=len(batches),
        gradient_clip_val=1.0,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    try:
        trainer.fit(module, DataLoader(batches, batch_size=None))
    except torch.cuda.OutOfMemoryError:
        log.warning("%s: out of memory", form.name)
    return clock.done


def measure_form(form: Form, setting: Setting, keep: Keep, batches: Sequence[int] | None = None) -> None:
    """Measures one form of the step with every batch and kind of lengths.

    Args:
        form: How the step is made.
        setting: Shape, device, repeats.
        keep: Is given each row as soon as it is measured.
        batches: Samples in a micro-batch, where not those of the setting.
    """
    cells = [Cell(replace(setting.size, batch=b), kind) for b in batches or setting.batches for kind in LENGTHS]
    for recomputes in (False, True):
        cells = cells[run_cells(form, cells, setting, recomputes, keep) :]
        gc.collect()
        if setting.device == "cuda":
            torch.cuda.empty_cache()
        if not cells:
            return
    for cell in cells:
        keep({"step": form.name, "recomputes": True, **cell.row(), "out_of_memory": True})
