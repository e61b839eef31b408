import logging
import sys
import time
from collections import deque
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from typing_extensions import override

RATE_OVER_BATCHES = 50

log = logging.getLogger(__name__)


class SampleProgressBar(RichProgressBar):
    """A progress bar with loss and samples per second; where there is no terminal, a log line now and then.

    Args:
        seconds_per_line: Seconds between two log lines where there is no terminal.
    """

    def __init__(self, seconds_per_line: float = 30.0) -> None:
        super().__init__()
        self.seconds_per_line = seconds_per_line
        self._batches: deque[tuple[float, int]] = deque(maxlen=RATE_OVER_BATCHES)
        self._next_line = 0.0
        self._writes_lines = not sys.stdout.isatty()
        if self._writes_lines:
            self.disable()

    @property
    def samples_per_second(self) -> float:
        """Samples of all devices per second, over the last batches; 0 before there are two."""
        if len(self._batches) < 2:
            return 0.0
        seconds = self._batches[-1][0] - self._batches[0][0]
        return sum(samples for _, samples in list(self._batches)[1:]) / seconds if seconds > 0 else 0.0

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        self._batches.append((now, len(batch) * trainer.world_size))
        if self._writes_lines and trainer.is_global_zero and now >= self._next_line:
            self._next_line = now + self.seconds_per_line
            values = [f"{name} {float(value):.4g}" for name, value in trainer.progress_bar_metrics.items()]
            if len(self._batches) > 1:
                values.append(f"{self.samples_per_second:.1f} samples/s")
            log.info("step %d of %d: %s", trainer.global_step, trainer.estimated_stepping_batches, ", ".join(values))
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    @override
    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if trainer.training:
            metrics["samples/s"] = round(self.samples_per_second, 1)
        return metrics
