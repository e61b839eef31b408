"""What a terminal or a log file shows while something runs: how far it is, how long it takes, and what comes out."""

import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column
from typing_extensions import override

from lightning_m2pt.system.console import OUT, say
from lightning_m2pt.tuning.step_boundary import StepBoundary

SECONDS_PER_LINE = 60.0
REFRESHES_PER_SECOND = 4
SHORTEST_BAR = 8
TUNING, VALIDATING, ANSWERING = "tuning", "validating", "answering"

log = logging.getLogger(__name__)


class Pace:
    """How many pieces a second are done, over everything since the first one, which warms up.

    Args:
        done: Pieces that are done already when the clock begins.
        now: Tells the time in seconds.
    """

    def __init__(self, done: int, now: Callable[[], float] = time.monotonic) -> None:
        self.done = done
        self._first: tuple[float, int] | None = None
        self._last = 0.0
        self._now = now

    def note(self, done: int) -> None:
        """Notes how many pieces are done by now."""
        self.done, self._last = done, self._now()
        if self._first is None:
            self._first = self._last, done

    @property
    def per_second(self) -> float:
        """Pieces a second; 0 before there were two."""
        if self._first is None or self._last <= self._first[0]:
            return 0.0
        return (self.done - self._first[1]) / (self._last - self._first[0])

    def time_left(self, total: float) -> str:
        """Returns how long the rest takes, such as ``0:12:05 left``; empty as long as nobody knows."""
        rate = self.per_second
        return f"{duration((total - self.done) / rate)} left" if rate > 0 and math.isfinite(total) else ""


class SampleProgressBar(ProgressBar):
    """One line on a terminal, in whatever width it has; elsewhere a log line a minute.

    Training counts optimizer steps of the whole run, answering counts questions, validation its batches.

    Args:
        what: What is answered, and which model answers.
        questions: How many questions are left to be answered.
        count: Adds to the questions that all processes have answered, and returns their sum; None where one answers.
        seconds_per_line: Seconds between two log lines where there is no terminal.
    """

    def __init__(
        self,
        what: str = ANSWERING,
        questions: int | None = None,
        count: Callable[[int], int] | None = None,
        seconds_per_line: float = SECONDS_PER_LINE,
    ) -> None:
        super().__init__()
        self.what = what
        self.questions = questions
        self._count = count
        self.seconds_per_line = seconds_per_line
        self._enabled = True
        self._writes_lines = not sys.stdout.isatty()
        self._steps = StepBoundary()
        self._shown: dict[str, Shown] = {}
        self._bars: Bars | None = None
        self._samples = Pace(0)

    @property
    def samples_per_second(self) -> float:
        """Samples of all devices a second since this start's first step."""
        return self._samples.per_second

    @override
    def disable(self) -> None:
        self._enabled = False

    @override
    def enable(self) -> None:
        self._enabled = True

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._steps.begin(trainer)
        self._samples = Pace(0)
        self._begin(TUNING, "step", trainer.estimated_stepping_batches, trainer.global_step)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._samples.note(self._samples.done + len(batch) * trainer.world_size)
        if self._steps.is_reached(trainer):
            self._show(trainer, TUNING, self._steps.step, rate=(self._samples, "samples"))

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end(TUNING)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(VALIDATING, "batch", sum(trainer.num_val_batches), 0)

    @override
    def on_validation_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        self._show(trainer, VALIDATING, self._shown[VALIDATING].pace.done + 1)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end(VALIDATING)

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.questions is None:
            self._begin(self.what, "batch", sum(trainer.num_predict_batches), 0)
        else:
            self._begin(self.what, "question", self.questions, 0)

    @override
    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        shown = self._shown[self.what]
        if self.questions is None:
            done, rate = shown.pace.done + 1, None
        else:
            answered = shown.pace.done + len(outputs) if self._count is None else self._count(len(outputs))
            done, rate = min(answered, self.questions), (shown.pace, "questions")
        self._show(trainer, self.what, done, rate=rate)

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end(self.what)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def _begin(self, what: str, unit: str, total: float, done: int) -> None:
        # A validation of less than a minute has no line of its own in a log file: its numbers stand in the next one.
        first = self.seconds_per_line if what == VALIDATING and self._writes_lines else 0.0
        self._shown[what] = Shown(what, unit, total, Pace(done), first)
        if self._enabled and not self._writes_lines:
            self._bars = self._bars or Bars()
            self._bars.show(self._shown[what], [])

    def _show(self, trainer: Trainer, what: str, done: int, rate: tuple[Pace, str] | None = None) -> None:
        shown = self._shown[what]
        shown.pace.note(done)
        if not self._enabled or not shown.is_due(1 / REFRESHES_PER_SECOND if self._bars else self.seconds_per_line):
            return
        values = []
        if what == TUNING:  # reading a value waits for the device: not oftener than it is shown
            values = [f"{name} {float(value):.4g}" for name, value in trainer.progress_bar_metrics.items()]
        if rate is not None and rate[0].per_second:
            values.append(f"{rate[0].per_second:.1f} {rate[1]}/s")
        if self._bars:
            self._bars.show(shown, values)
        elif trainer.state.fn == "fit":
            log.info("%s", shown.line(values))
        else:
            say(shown.line(values))

    def _end(self, what: str) -> None:
        del self._shown[what]
        if self._bars:
            self._bars.remove(what)
            if not self._shown:
                self._close()

    def _close(self) -> None:
        if self._bars:
            self._bars.stop()
            self._bars = None
        self._shown = {}


class Shown:
    """Something that is under way.

    Args:
        what: Its name.
        unit: What its pieces are called.
        total: How many there are; infinite where nobody knows.
        pace: How many are done, and how fast.
        first_line_after: Seconds before it is due for the first time.
    """

    def __init__(self, what: str, unit: str, total: float, pace: Pace, first_line_after: float) -> None:
        self.what = what
        self.unit = unit
        self.total = total
        self.pace = pace
        self._next = time.monotonic() + first_line_after

    def is_due(self, seconds: float) -> bool:
        """Tells whether so many seconds have gone since it was last due, and counts from now on if so."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + seconds
        return True

    def count(self) -> str:
        """Returns how far it is: ``step 120 of 300``, ``120 of 300 questions``."""
        of_all = f"{self.pace.done:,} of {self.total:,.0f}" if math.isfinite(self.total) else f"{self.pace.done:,}"
        return f"{of_all} questions" if self.unit == "question" else f"{self.unit} {of_all}"

    def line(self, values: Sequence[str]) -> str:
        """Returns the line of a log file."""
        begin = self.count() if self.what == TUNING else f"{self.what}: {self.count()}"
        texts = ", ".join(filter(None, [*values, self.pace.time_left(self.total)]))
        return f"{begin}: {texts}" if texts else begin


class Bars:
    """One line for each thing that is under way; what does not fit into the terminal's width is left out."""

    def __init__(self) -> None:
        fixed = Column(no_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}", table_column=fixed.copy()),
            BarColumn(bar_width=None, table_column=Column(min_width=SHORTEST_BAR, ratio=1)),
            TextColumn("{task.fields[texts]}", table_column=fixed.copy()),
            console=OUT,
            transient=True,
            expand=True,
            auto_refresh=False,  # drawn when something is shown: no thread beside the training
        )
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()

    def show(self, shown: Shown, values: Sequence[str]) -> None:
        """Shows one of them as it is now."""
        total = shown.total if math.isfinite(shown.total) else None
        if shown.what not in self._tasks:
            self._tasks[shown.what] = self._progress.add_task(shown.what, total=total, texts="")
        room = OUT.width - len(shown.what) - SHORTEST_BAR - 2
        texts = fitting([shown.count(), shown.pace.time_left(shown.total), *values], room)
        self._progress.update(self._tasks[shown.what], completed=shown.pace.done, texts=texts, refresh=True)

    def remove(self, what: str) -> None:
        """Takes away what is over."""
        self._progress.remove_task(self._tasks.pop(what))

    def stop(self) -> None:
        """Gives the terminal back."""
        self._progress.stop()


def fitting(texts: Sequence[str], room: int) -> str:
    """Returns the first texts, two spaces between them, as far as they fit; the first one stands in any case."""
    kept = ""
    for text in filter(None, texts):
        longer = f"{kept}  {text}" if kept else text
        if kept and len(longer) > room:
            break
        kept = longer
    return kept


def duration(seconds: float) -> str:
    """Returns a length of time: ``0:12:05``, and ``2 days 04:12`` where it is long."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} day{'s' * (days > 1)} {hour:02d}:{minute:02d}"
    return f"{hour}:{minute:02d}:{second:02d}"
