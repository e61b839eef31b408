"""What a terminal and a log file show: one line, steps of the whole run, time left; no control characters in a file."""

import io
import re
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import LightningModule, Trainer
from rich.console import Console
from torch.utils.data import DataLoader

from callbacks import progress
from callbacks.progress import Pace, SampleProgressBar, duration, fitting
from tests.callbacks.test_every_callback import MethodToy, fit

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_the_time_left_is_that_of_the_steps_of_this_start_without_its_first() -> None:
    clock = Clock()
    pace = Pace(100, clock)
    assert pace.time_left(300) == ""
    clock.seconds += 60  # the first step warms up
    pace.note(101)
    assert (pace.time_left(300), pace.per_second) == ("", 0.0)
    clock.seconds += 20
    pace.note(111)
    assert pace.per_second == 0.5
    assert pace.time_left(300) == "0:06:18 left"
    assert pace.time_left(float("inf")) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0:00:00"),
        (59.7, "0:01:00"),
        (725, "0:12:05"),
        (86399, "23:59:59"),
        (90120, "1 day 01:02"),
        (200000, "2 days 07:33"),
    ],
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_does_not_fit_is_left_out_from_the_end() -> None:
    texts = ["step 1 of 9", "", "0:01:00 left", "loss 1.5", "3.0 samples/s"]
    assert fitting(texts, 34) == "step 1 of 9  0:01:00 left"
    assert fitting(texts, 35) == "step 1 of 9  0:01:00 left  loss 1.5"
    assert fitting(texts, 3) == "step 1 of 9"


class Answering(LightningModule):
    """Answers as many questions as a batch has."""

    def predict_step(self, batch: Any, batch_idx: int) -> list[int]:
        return [0] * len(batch)


def answer(bar: SampleProgressBar) -> None:
    trainer = Trainer(accelerator="cpu", callbacks=[bar], logger=False, enable_checkpointing=False)
    trainer.predict(Answering(), DataLoader(range(10), batch_size=4), return_predictions=False)


def test_a_log_file_gets_a_line_now_and_then_with_the_time_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(progress, "say", said.append)
    with caplog.at_level("INFO"):
        fit(MethodToy(), [SampleProgressBar(seconds_per_line=0)])
        answer(SampleProgressBar("vsr, tuned", 10, seconds_per_line=0))
    lines = [record.getMessage() for record in caplog.records if record.name == "callbacks.progress"]
    assert len(lines) == 3
    assert "left" not in lines[0]
    assert "samples/s" not in lines[0]  # one batch has no rate yet
    assert re.fullmatch(r"step 3 of 3: train/loss \S+, \d+\.\d samples/s, 0:00:00 left", lines[-1])
    assert said[0] == "vsr, tuned: 4 of 10 questions"
    assert re.fullmatch(r"vsr, tuned: 10 of 10 questions: \d+\.\d questions/s, 0:00:00 left", said[-1])


def test_a_line_a_minute_is_not_more(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        fit(MethodToy(), [SampleProgressBar()])
    assert len([record for record in caplog.records if record.name == "callbacks.progress"]) == 1


@pytest.mark.parametrize("width", [80, 200])
def test_bars_have_one_line_of_the_terminals_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=True)
    monkeypatch.setattr(progress, "OUT", console)
    monkeypatch.setattr(progress, "REFRESHES_PER_SECOND", 10_000)  # every step is shown
    monkeypatch.setattr(progress.sys, "stdout", SimpleNamespace(isatty=lambda: True))
    fit(MethodToy(), [SampleProgressBar()])
    answer(SampleProgressBar("a set with a long name, frozen", 10))
    shown = [line.rstrip() for line in CONTROL.sub("", text.getvalue()).replace("\r", "\n").splitlines()]
    assert max(map(len, shown)) <= width
    assert any(re.search(r"^tuning +━.* step [123] of 3", line) for line in shown)
    assert any(re.search(r"^a set with a long name, frozen +━.* (4|8|10) of 10 questions", line) for line in shown)
    assert not any("Epoch" in line or "v_num" in line for line in shown)
    assert text.getvalue().count("\x1b[?25l") == text.getvalue().count("\x1b[?25h")  # the cursor is given back


def on_two_devices(fn: str) -> Any:
    """A Trainer as the bar sees it: two devices, a run that goes on behind its step 100."""
    return SimpleNamespace(
        world_size=2,
        state=SimpleNamespace(fn=fn),
        global_step=100,
        estimated_stepping_batches=300,
        num_val_batches=[2],
        num_predict_batches=[2],
        progress_bar_metrics={},
    )


def step(bar: SampleProgressBar, trainer: Any) -> None:
    trainer.global_step += 1
    bar.on_train_batch_end(trainer, LightningModule(), None, [0] * 4, 0)


def test_samples_and_questions_of_all_devices_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(progress, "say", said.append)
    bar = SampleProgressBar("vsr, tuned", 9, lambda number: number + 3, seconds_per_line=0)  # others answered three
    trainer, clock = on_two_devices("predict"), Clock()
    bar.on_predict_start(trainer, LightningModule())
    bar.on_predict_batch_end(trainer, LightningModule(), [0, 0], None)
    assert said == ["vsr, tuned: 5 of 9 questions"]
    trainer = on_two_devices("fit")
    bar.on_train_start(trainer, LightningModule())
    bar._samples = Pace(0, clock)
    step(bar, trainer)
    clock.seconds += 2
    step(bar, trainer)
    assert bar.samples_per_second == 4.0


def test_a_short_validation_has_no_line_in_a_log_file(caplog: pytest.LogCaptureFixture) -> None:
    trainer = on_two_devices("fit")
    with caplog.at_level("INFO"):
        for seconds in (60, 0):
            bar = SampleProgressBar(seconds_per_line=seconds)
            bar.on_validation_start(trainer, LightningModule())
            bar.on_validation_batch_end(trainer)
    assert [record.getMessage() for record in caplog.records] == ["validating: batch 1 of 2"]


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int = 80) -> io.StringIO:
    """Lets bars be drawn into a text, at every step."""
    text = io.StringIO()
    monkeypatch.setattr(progress, "OUT", Console(file=text, width=width, force_terminal=True))
    monkeypatch.setattr(progress, "REFRESHES_PER_SECOND", 10_000)
    monkeypatch.setattr(progress.sys, "stdout", SimpleNamespace(isatty=lambda: True))
    return text


def test_a_resumed_run_is_shown_at_its_step_and_stays_a_bar_behind_a_validation(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    text, trainer = on_a_terminal(monkeypatch), on_two_devices("fit")
    bar = SampleProgressBar()
    bar.on_train_start(trainer, LightningModule())
    assert "step 100 of 300" in text.getvalue()
    bar.on_validation_start(trainer, LightningModule())
    assert "batch 0 of 2" in text.getvalue()
    bar.on_validation_end(trainer, LightningModule())
    with caplog.at_level("INFO"):
        step(bar, trainer)
    assert "step 101 of 300" in text.getvalue()
    assert not caplog.records
    bar.on_train_end(trainer, LightningModule())
    assert text.getvalue().count("\x1b[?25l") == text.getvalue().count("\x1b[?25h") == 1


def test_a_bar_has_its_least_width_whatever_stands_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    text = on_a_terminal(monkeypatch, 40)
    bars, shown = progress.Bars(), progress.Shown("tuning", "step", 9, Pace(1), 0.0)
    for length in range(1, 20):
        bars.show(shown, ["x" * length])
    bars.stop()
    lines = CONTROL.sub("", text.getvalue()).replace("\r", "\n").splitlines()
    assert all(line.count("━") + line.count("╸") + line.count("╺") >= 8 for line in lines if line.strip())
    assert not any("…" in line for line in lines)
    assert any(line.rstrip().endswith("step 1 of 9  " + "x" * 11) for line in lines)
