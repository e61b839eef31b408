import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console
from typing_extensions import override

from lightning_m2pt.storage.run_record import update_run_record
from lightning_m2pt.tuning.parameter_counts import counts_table, parameter_counts

TEXT_WIDTH = 120

log = logging.getLogger(__name__)


class ParameterTable(Callback):
    """Logs what is trained when a fit starts, and writes it into the run's record.

    Args:
        run_folder: The run's folder.
        base_parameters: Counts the parameters of the untouched model; asked once its modules exist.
    """

    def __init__(self, run_folder: Path, base_parameters: Callable[[], int]) -> None:
        self.run_folder = run_folder
        self.base_parameters = base_parameters

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        counted = parameter_counts(pl_module.method.parameter_parts(), self.base_parameters())
        log.info("%s", as_text(counted))
        update_run_record(self.run_folder, "trainable", counted)


def as_text(counted: dict[str, Any]) -> str:
    """Returns the table as text."""
    text = io.StringIO()
    Console(file=text, width=TEXT_WIDTH).print(counts_table(counted))
    return text.getvalue().rstrip()
