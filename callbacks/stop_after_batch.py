from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_m2pt.system.stop_signals import StopSignals


class StopAfterBatch(Callback):
    """Ends an evaluation after the batch in which a stop signal came; a second signal ends it at once.

    Lightning itself only notes SIGTERM while it predicts, and turns SIGINT into exit code 1. Put it behind the callback
    that writes the answers, so that those of the last batch are kept.

    Args:
        stop_code: Tells the exit code with which another process of the job asks all to stop; 0 if none does.
    """

    def __init__(self, stop_code: Callable[[], int]) -> None:
        self._signals = StopSignals()
        self._stop_code = stop_code

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._signals.take_over()

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
        if self._signals.received:
            raise SystemExit(self._signals.exit_code)
        if code := self._stop_code():
            raise SystemExit(code)

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._signals.give_back()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._signals.give_back()
