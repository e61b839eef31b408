import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

EXIT_CODE_BASE = 128
"""A process that a signal ended exits with this plus the signal's number: 130 for SIGINT, 143 for SIGTERM."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopAfterBatch(Callback):
    """Ends an evaluation after the batch in which SIGINT or SIGTERM came; a second signal ends it at once.

    Lightning itself only notes SIGTERM while it predicts, and turns SIGINT into exit code 1. Put it behind the callback
    that writes the answers, so that those of the last batch are kept.
    """

    def __init__(self) -> None:
        self._received = 0
        self._previous: dict[signal.Signals, Any] = {}

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():  # no other may handle signals
            self._previous = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}

    @override
    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._received:
            raise SystemExit(EXIT_CODE_BASE + self._received)

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self._received:
            raise SystemExit(EXIT_CODE_BASE + number)
        self._received = number
