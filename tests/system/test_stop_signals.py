"""Stop signals end a command with the exit code a shell expects, and loader workers leave them to the main process."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from experiments.chaos.small_run import command_words, write_records
from lightning_m2pt import main as dispatcher
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.storage.checkpoint import latest_checkpoint
from lightning_m2pt.system.stop_signals import STOP_SIGNALS, StopSignals, ended_by_signals
from lightning_m2pt.system.worker_death import worker_death
from lightning_m2pt.tuning.sample_order import SampleLoader

ROOT = Path(__file__).parents[2]


class WorkerNumbers(Dataset[int]):
    """Tells which process prepares a sample; one of them takes as long as it is told."""

    def __init__(self, size: int, pause: float = 0.0) -> None:
        self.size, self.pause = size, pause

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, position: int) -> int:
        time.sleep(self.pause)
        return os.getpid()


def as_it_is(rows: list[int]) -> Any:
    return rows


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_workers_prepare_on_after_a_stop_signal_and_end_with_their_parent(number: signal.Signals) -> None:
    batches = iter(SampleLoader(WorkerNumbers(12), 1, as_it_is, num_workers=2))
    workers = {next(batches)[0] for _ in range(4)}
    assert len(workers) == 2
    signals = StopSignals()
    signals.take_over()
    try:
        sender = "import os, sys; [os.kill(int(word), int(sys.argv[1])) for word in sys.argv[2:]]"
        subprocess.run([sys.executable, "-S", "-c", sender, str(int(number)), *map(str, workers)], check=True)
        assert {batch[0] for batch in batches} == workers
    finally:
        signals.give_back()
    assert signals.received == 0
    del batches
    assert not any(is_running(worker) for worker in workers)


def is_running(process: int) -> bool:
    for _ in range(600):
        try:
            if "(zombie)" in Path(f"/proc/{process}/status").read_text():
                return False
        except FileNotFoundError:
            return False
        time.sleep(0.05)
    return True


def test_a_parent_can_end_a_worker_that_is_busy() -> None:
    """What multiprocessing does at the end of a process whose loader is still there; it then waits without end."""
    batches = iter(SampleLoader(WorkerNumbers(4), 1, as_it_is, num_workers=1))
    (worker,) = next(batches)
    os.kill(worker, signal.SIGTERM)
    assert not is_running(worker)


@pytest.fixture
def heard_hang_up() -> Iterator[None]:
    """As at a terminal, also where the tests themselves were told to ignore it (nohup)."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("heard_hang_up")
@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_a_command_that_is_stopped_cleans_up_and_ends_with_the_signals_code(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    cleaned, before = [], {stop: signal.getsignal(stop) for stop in STOP_SIGNALS}

    def interrupted(_verb: str, _words: list[str]) -> int:
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(number)
        return 0

    monkeypatch.setattr(dispatcher, "run_verb", interrupted)
    with pytest.raises(SystemExit) as ended:
        dispatcher.main(["fit"])
    assert ended.value.code == 128 + number
    assert cleaned == [number]
    assert {stop: signal.getsignal(stop) for stop in STOP_SIGNALS} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_error_while_a_stopped_command_cleans_up_is_the_signals(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """As where weights are loaded: Lightning moves what is not there yet. An error without a signal stays one."""
    signals = [number]

    def interrupted(_verb: str, _words: list[str]) -> int:
        try:
            for each in signals:
                signal.raise_signal(each)
            raise ValueError("before")
        except BaseException:
            torch.nn.Linear(2, 2, device="meta").cpu()
            raise

    monkeypatch.setattr(dispatcher, "run_verb", interrupted)
    with pytest.raises(SystemExit) as ended:
        dispatcher.main(["fit"])
    assert ended.value.code == 128 + number
    signals.clear()
    with pytest.raises(NotImplementedError, match="meta"):
        dispatcher.main(["fit"])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (BadInputError("no number", where="a.json", expected="one", hint="none"), "error: a.json: no number\n"),
        (OSError(errno.ENOSPC, "No space left on device", "run/state"), "error: run/state: No space left on device\n"),
        (OSError("lost"), "error: file system: lost\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), ""),
        (RuntimeError("half a model"), ""),
    ],
    ids=repr,
)
def test_what_tells_a_user_of_a_failure_is_said_before_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    def interrupted(_verb: str, _words: list[str]) -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise error

    monkeypatch.setattr(dispatcher, "run_verb", interrupted)
    with pytest.raises(SystemExit) as ended:
        dispatcher.main(["fit"])
    assert (ended.value.code, capsys.readouterr().err) == (143, line)


def test_errors_in_a_circle_are_looked_at_once() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    with pytest.raises(ValueError, match="first"), ended_by_signals():
        raise first


def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signals = StopSignals()
        signals.take_over()
        with ended_by_signals():
            signal.raise_signal(signal.SIGHUP)
        signals.give_back()
        assert signals.received == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    "text",
    [
        "DataLoader worker (pid 71) is killed by signal: Killed. ",
        "DataLoader worker (pid(s) 71, 72) exited unexpectedly",
        "DataLoader worker (pid 71) is killed by signal: Bus error. It is possible that workers are out of memory",
    ],
)
def test_a_dead_worker_is_three_lines_and_exit_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    def dies(_verb: str, _words: list[str]) -> int:
        raise RuntimeError(text)

    monkeypatch.setattr(dispatcher, "run_verb", dies)
    assert dispatcher.main(["fit"]) == ExitCode.ENVIRONMENT
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("error: data.num_workers: loader worker 71")
    assert worker_death(RuntimeError("CUDA error: out of memory")) is None


def test_a_killed_worker_is_told_by_pytorch_as_expected() -> None:
    """The sentence is PyTorch's: another one would end in a traceback again."""
    batches = iter(SampleLoader(WorkerNumbers(50, pause=0.1), 1, as_it_is, num_workers=1))
    (worker,) = next(batches)
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(RuntimeError) as died:
        list(batches)
    failure = worker_death(died.value)
    assert failure is not None
    assert str(worker) in failure.what


def start_fit(folder: Path) -> subprocess.Popen[str]:
    """Starts a training with loader workers in a group of its own, and returns once it has saved."""
    write_records(folder / "records")
    words = command_words("fit", folder / "records", folder / "outputs", workers=2)
    words[words.index("--trainer.max_steps") + 1] = "1000"
    process = subprocess.Popen(
        [sys.executable, "-m", "lightning_m2pt.main", *words],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    while process.poll() is None and not list(folder.glob("outputs/*/*/checkpoints/step=*")):
        time.sleep(0.05)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_a_signal_to_the_whole_group_finishes_the_step_and_saves(tmp_path: Path, number: signal.Signals) -> None:
    process = start_fit(tmp_path)
    os.killpg(process.pid, number)
    _, errors = process.communicate()
    assert process.returncode == 128 + number
    assert errors.splitlines() == [] or "Loading weights" in errors
    assert "Traceback" not in errors
    (checkpoints,) = tmp_path.glob("outputs/*/*/checkpoints")
    newest = latest_checkpoint(checkpoints)
    assert newest is not None
    (log,) = tmp_path.glob("outputs/*/*/log.txt")
    last = log.read_text().splitlines()[-1]
    assert last.endswith(
        f"stopped by {number.name} after step {int(newest.name[5:])}, state saved: the same command goes on"
    )
    assert not list(tmp_path.glob("outputs/*/.*"))


@pytest.mark.slow
def test_a_worker_that_the_system_kills_costs_no_step(tmp_path: Path) -> None:
    process = start_fit(tmp_path)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == ExitCode.ENVIRONMENT
    how = r"(was killed by signal: Killed|exited unexpectedly)"  # PyTorch sees the death in one of two places
    assert re.search(f"loader worker {children[-1]} {how}", errors.splitlines()[-3])
    assert "Traceback" not in errors


def test_stop_signals_wait_while_workers_start() -> None:
    held: list[set[int]] = []

    class Starting:
        def __iter__(self) -> Iterator[Any]:
            held.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
            return iter([])

    loader = SampleLoader([], 1, lambda batch: batch)
    loader.loader = Starting()
    before = set(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    assert not list(loader)
    assert held[0] >= set(STOP_SIGNALS)
    assert set(signal.pthread_sigmask(signal.SIG_BLOCK, [])) == before


def test_the_first_signal_is_noted_and_a_second_one_ends_the_process():
    signals, before = StopSignals(), [signal.getsignal(number) for number in STOP_SIGNALS]
    signals.take_over()
    try:
        signal.raise_signal(signal.SIGTERM)
        assert (signals.received, signals.exit_code) == (15, 143)
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGINT)
        assert (ended.value.code, signals.received) == (130, 15)
    finally:
        signals.give_back()
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
