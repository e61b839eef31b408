"""The loggers of a run: ``metrics.csv`` and TensorBoard, neither of which counts a step twice after a resume.

The table of an interrupted run is that of an uninterrupted one, byte by byte, and TensorBoard shows the same curves.
"""

import csv
import io
import logging
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from lightning_m2pt.runs.metrics_file import METRICS_FILE, STEP
from lightning_m2pt.system.atomic_files import write_atomically

EPOCH = "epoch"

log = logging.getLogger(__name__)


def loggers_for(run_folder: Path, resumed_step: int) -> list[Logger]:
    """Returns the loggers of a run.

    The Trainer must log every step (``log_every_n_steps=1``), or ``metrics.csv`` has gaps.

    Args:
        run_folder: The run's folder.
        resumed_step: Optimizer steps done in the checkpoint that is resumed; 0 for a new run. Whatever was logged
            beyond it is dropped from ``metrics.csv`` and marked as purged in TensorBoard.
    """
    # Lightning's step index of the first step to come is the number of steps done.
    board = Board(run_folder, name="tb", version="", default_hp_metric=False, purge_step=resumed_step)
    return [StepMetrics(run_folder / METRICS_FILE, resumed_step), board]


class Board(TensorBoardLogger):
    """TensorBoard, which shows the validation of a resumed step once although it is made again.

    TensorBoard purges from the resumed step on; that step's validation stands at the index before, whole or in part.
    Lightning gives the epoch with the step's metrics and again with its validation's: it is written once.
    """

    _step_of_epoch: int | None = None

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        shown: set[str] = set()
        if step is not None and step < self._kwargs["purge_step"]:
            shown = tags_shown(Path(self.log_dir), step)
        if step is not None and step == self._step_of_epoch:
            shown.add(EPOCH)
        new = {name: value for name, value in metrics.items() if name not in shown}
        if EPOCH in metrics:
            self._step_of_epoch = step
        if new:
            super().log_metrics(new, step)


def tags_shown(folder: Path, step: int) -> set[str]:
    """Returns the names of what TensorBoard shows at one step; reads all of its files."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.compat.proto.event_pb2 import SessionLog

    tags: set[str] = set()
    # By time: names begin with a second, in which several may have started.
    for file in sorted(folder.glob("events.out.tfevents*"), key=lambda file: file.stat().st_mtime_ns):
        for event in EventFileLoader(str(file)).Load():
            if event.session_log.status == SessionLog.START and event.step <= step:
                tags.clear()
            if event.step == step:
                tags.update(value.tag for value in event.summary.value)
    return tags


class StepMetrics(Logger):
    """A table with one row per optimizer step, the first being 1.

    A row is collected until Lightning asks to save, which it does after each step, and appended. A metric that comes
    later (validation after the step, a column never seen before) rewrites the file once, atomically.

    Args:
        path: The table's file.
        resumed_step: Rows beyond it are dropped, for they will come again.
    """

    def __init__(self, path: Path, resumed_step: int) -> None:
        super().__init__()
        self.path = path
        self.resumed_step = resumed_step
        self._columns: list[str] = []
        self._row: dict[str, str] = {}
        self._row_is_on_disk = False

    @property
    @override
    def name(self) -> str:
        return self.path.stem

    @property
    @override
    def version(self) -> str:
        return ""

    @override
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: a table of numbers has no place for them."""

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if step is None or not metrics:
            return
        if not self._columns:
            self._open()
        number = str(step + 1)
        if self._row.get(STEP) not in (None, number):
            self.save()
            self._row, self._row_is_on_disk = {}, False
        cells = {
            name: format(value, "d") if isinstance(value, int) else repr(float(value))
            for name, value in metrics.items()
        }
        row = self._row | {STEP: number} | cells
        if row != self._row:
            self._row, was_on_disk = row, self._row_is_on_disk
            if was_on_disk:
                self._rewrite([*self._rows()[:-1], row])

    @override
    @rank_zero_only
    def save(self) -> None:
        if not self._row or self._row_is_on_disk:
            return
        if set(self._row) <= set(self._columns):
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns, lineterminator="\n").writerow(self._row)
        else:
            self._rewrite([*self._rows(), self._row])
        self._row_is_on_disk = True

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._columns = [STEP]
        kept = [row for row in self._rows() if int(row[STEP]) <= self.resumed_step]
        if missing := self.resumed_step - len({row[STEP] for row in kept}):
            log.warning("%s lacks %d of the %d steps that were done", self.path, missing, self.resumed_step)
        self._rewrite(kept)
        if kept:  # validation may still have something to say about the step that is resumed
            self._row, self._row_is_on_disk = kept[-1], True

    def _rows(self) -> list[dict[str, str]]:
        """Returns the rows on disk that have a step, without a last one that a kill cut off."""
        if not self.path.exists():
            return []
        whole_lines = self.path.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
        rows = csv.DictReader(whole_lines.splitlines())
        return [{name: cell for name, cell in row.items() if cell} for row in rows if (row.get(STEP) or "").isdecimal()]

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        self._columns = list(dict.fromkeys([*self._columns, *(name for row in rows for name in row)]))
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path, text.getvalue().encode())
