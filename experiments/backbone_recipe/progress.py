"""What the recipe shows while it runs: a bar for each stage, and a log line at each recorded step."""

import logging
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from experiments.backbone_recipe.training_loop import StageProgress

logger = logging.getLogger(__name__)


class RecipeProgress:
    """Bars on a terminal; log lines elsewhere. Called with every ``StageProgress``."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description:>9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[losses]}"),
            TextColumn("{task.fields[minutes]:.1f} min left"),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._first: dict[str, tuple[int, float]] = {}

    def __enter__(self) -> "RecipeProgress":
        """Shows the bars."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes the bars away."""
        self._bars.stop()

    def __call__(self, progress: StageProgress) -> None:
        """Shows where a stage stands."""
        first_step, first_time = self._first.setdefault(progress.stage, (progress.step, time.monotonic()))
        pace = (time.monotonic() - first_time) / max(1, progress.step - first_step)
        minutes = pace * (progress.steps - progress.step) / 60
        losses = " ".join(f"{name} {loss:.3f}" for name, loss in progress.losses.items())
        if progress.stage not in self._tasks:
            self._tasks[progress.stage] = self._bars.add_task(
                progress.stage, total=progress.steps, losses=losses, minutes=minutes
            )
        self._bars.update(self._tasks[progress.stage], completed=progress.step, losses=losses, minutes=minutes)
        logger.info("%s %d/%d %s, %.1f min left", progress.stage, progress.step, progress.steps, losses, minutes)
