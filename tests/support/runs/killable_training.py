"""A training of its own process, for tests that kill it: ``python -m tests.support.runs.killable_training FOLDER``."""

import sys
import time
from pathlib import Path
from typing import Any

import lightning_m2pt.torchvision_guard  # noqa: F401  (before Lightning)

# isort: split
from lightning.pytorch import Callback

from tests.callbacks.test_loggers import train


class Slow(Callback):
    """Leaves time for a kill in every step."""

    def on_after_backward(self, *_: Any) -> None:
        time.sleep(0.05)


if __name__ == "__main__":
    train(Path(sys.argv[1]), micro_batches=4, extra=Slow())
