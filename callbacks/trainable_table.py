import io
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.table import Table
from typing_extensions import override

from lightning_m2pt.run_record import update_run_record
from lightning_m2pt.types import ParameterPart

log = logging.getLogger(__name__)


class TrainableTable(Callback):
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
        parts, base = pl_module.trainable_table(), self.base_parameters()
        log.info("what is trained:\n%s", rendered(parts, base))
        record = {
            "parts": [asdict(part) for part in parts],
            "trained": sum(part.parameters for part in parts),
            "base": base,
            "percent": percent_trained(parts, base),
        }
        update_run_record(self.run_folder, "trainable", record)


def percent_trained(parts: list[ParameterPart], base: int) -> float:
    """Returns trained numbers in percent of the model with everything added to it."""
    return 100 * sum(part.parameters for part in parts) / (base + sum(part.added for part in parts))


def rendered(parts: list[ParameterPart], base: int) -> str:
    """Returns the table as text."""
    table = Table("part", "trained", "added", "dead")
    for part in parts:
        dead = f"{part.dead:,} ({', '.join(part.dead_names)})" if part.dead else ""
        table.add_row(part.name, f"{part.parameters:,}", f"{part.added:,}", dead)
    trained, added = sum(part.parameters for part in parts), sum(part.added for part in parts)
    table.add_section()
    table.add_row("total", f"{trained:,}", f"{added:,}", f"{percent_trained(parts, base):.4f}% of {base + added:,}")
    text = io.StringIO()
    Console(file=text, width=120).print(table)
    return text.getvalue().rstrip()
