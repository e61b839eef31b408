from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from typing_extensions import override

from lightning_m2pt.storage.run_record import update_run_record


class AblationToggles(Callback):
    """Writes which components of the method are on to the loggers' hyper-parameters and the run's record.

    Args:
        run_folder: The run's folder.
    """

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        toggles = {"method": pl_module.method.name, **pl_module.method.toggles()}
        update_run_record(self.run_folder, "toggles", toggles)
        for logger in trainer.loggers:
            logger.log_hyperparams(toggles)
