"""Runs jobs as processes of their own, several at a time, and records what becomes of each.

One loop without threads. Children stand in sessions of their own, so that a Ctrl-C reaches them once, through us: the
first signal lets them save and end, a second one ends them at once.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from experiments.sweep.jobs import Job, shell_line
from experiments.sweep.record import Entry, State, SweepRecord, is_complete, why_incomplete
from lightning_m2pt.storage.run_record import MADE_WITH, read_run_record
from lightning_m2pt.system.checkout import child_environment
from lightning_m2pt.system.stop_signals import EXIT_CODE_BASE, stop_signals_handled_by

M2PT = (sys.executable, "-m", "lightning_m2pt.main")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""The same numbers whatever else runs beside, and as fast: the cores are taken by other cells."""
SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BETWEEN_REFRESHES = 1.0
STOPPED_CODES = {-signal.SIGINT, -signal.SIGTERM, EXIT_CODE_BASE + signal.SIGINT, EXIT_CODE_BASE + signal.SIGTERM}
ACCURACY, LOSS = "val/answer_accuracy", "val/loss"
LONGEST_ERROR = 200
PREDICTIONS = ".jsonl"


@dataclass
class Running:
    """A job with a process.

    Attributes:
        job: The job.
        entry: Its entry.
        process: The process of the command it is at.
        at: Which command that is.
        lock: Descriptor of the job's lock.
        log_start: Where this start's part of the log begins.
    """

    job: Job
    entry: Entry
    process: subprocess.Popen[bytes]
    at: int
    lock: int
    log_start: int


class StopRequests:
    """Counts the signals that ask the sweep to end.

    Attributes:
        number: The first signal; 0 before one came.
        count: How many came.
    """

    def __init__(self) -> None:
        self.number, self.count = 0, 0

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Counts a signal; the handler of all stop signals while the sweep runs."""
        self.number, self.count = self.number or number, self.count + 1


class SweepRunner:
    """Runs what is not complete.

    Args:
        jobs: In the order they are started.
        record: Where it is written what becomes of them.
        at_most: Jobs at a time.
        tell: Takes one line for every event.
        refresh: Is called about once a second.
        final_failures: Exit codes after which a job is not tried again: a trial that diverged has its answer.
        program: What stands before a command's words; empty is this installation's ``m2pt``.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        record: SweepRecord,
        at_most: int,
        tell: Callable[[str], None],
        refresh: Callable[[], None],
        final_failures: Collection[int] = (),
        program: Sequence[str] = (),
    ) -> None:
        self._jobs, self._record, self._at_most = list(jobs), record, at_most
        self._tell, self._refresh = tell, refresh
        self._final_failures, self._program = frozenset(final_failures), tuple(program or M2PT)
        self._running: list[Running] = []
        self._began = time.time()
        self._told_elsewhere: set[str] = set()

    def run(self) -> None:
        """Returns when every job has ended, well or badly.

        Raises:
            SystemExit: With 128 + its number after a signal, when all children have ended.
        """
        waiting = [job for job in self._jobs if not self._is_settled(job)]
        forwarded, next_refresh = 0, 0.0
        stop = StopRequests()
        with stop_signals_handled_by(stop.note):
            try:
                while self._running or (waiting and not stop.number):
                    if stop.count > forwarded:
                        forwarded = stop.count
                        self._end_children(stop.number)
                    self._look_after_children(is_stopping=bool(stop.number))
                    if not stop.number:
                        waiting = self._start(waiting)
                    if time.monotonic() >= next_refresh:
                        self._refresh()
                        next_refresh = time.monotonic() + SECONDS_BETWEEN_REFRESHES
                    time.sleep(SECONDS_BETWEEN_LOOKS)
            finally:
                self._abandon()
        self._refresh()
        if stop.number:
            self._tell("stopped: the same command goes on")
            raise SystemExit(EXIT_CODE_BASE + stop.number)

    def _is_settled(self, job: Job, since: float = float("inf")) -> bool:
        """Tells whether a job need not be run: complete, failed for good, or failed elsewhere since a time."""
        entry = self._record.read(job)
        if entry is None:
            return False
        has_failed = entry.state == State.FAILED
        return is_complete(job, entry) or (
            has_failed and (entry.exit_code in self._final_failures or entry.ended >= since)
        )

    def _start(self, waiting: list[Job]) -> list[Job]:
        """Starts what there is room for; returns what is still waiting."""
        left = []
        for job in waiting:
            lock = self._record.lock(job) if len(self._running) < self._at_most else None
            if lock is None:
                left.append(job)
                if len(self._running) < self._at_most and job.key not in self._told_elsewhere:
                    self._told_elsewhere.add(job.key)
                    self._tell(f"elsewhere  {job.title}: another process has it")
            elif self._is_settled(job, since=self._began):  # by another sweep, while we waited for it
                os.close(lock)
            else:
                self._start_job(job, lock)
        return left

    def _start_job(self, job: Job, lock: int) -> None:
        log = self._record.log_file(job)
        log.parent.mkdir(parents=True, exist_ok=True)
        entry = Entry(job.label, job.name, [shell_line(words) for words in job.commands], str(log))
        entry.state, entry.started = State.CUT_OFF, time.time()
        if job.key_now() != job.key:  # its results would stand for what it is no more
            entry.state, entry.ended = State.FAILED, time.time()
            entry.error = "its configuration file has changed since the sweep was started; start the sweep again"
            self._record.write(job, entry)
            os.close(lock)
            self._tell(f"{entry.state:<10} {job.title}: {entry.error}")
            return
        self._record.write(job, entry)
        log_start = log.stat().st_size if log.exists() else 0
        self._running.append(Running(job, entry, self._process(job, 0, lock), 0, lock, log_start))
        self._tell(f"start      {job.title}")

    def _process(self, job: Job, at: int, lock: int) -> subprocess.Popen[bytes]:
        """Starts one command; it holds the job's lock as long as it lives, with or without us."""
        words = job.commands[at]
        with self._record.log_file(job).open("ab") as log:
            log.write(f"$ {shell_line(words)}\n".encode())
            log.flush()
            return subprocess.Popen(
                [*self._program, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**child_environment("m2pt sweep"), **ONE_THREAD},
                start_new_session=True,
                pass_fds=[lock],
            )

    def _look_after_children(self, *, is_stopping: bool) -> None:
        still_running = []
        for running in self._running:
            code = running.process.poll()
            if code is None:
                still_running.append(running)
            elif code == 0 and running.at + 1 < len(running.job.commands) and not is_stopping:
                running.at += 1
                running.process = self._process(running.job, running.at, running.lock)
                still_running.append(running)
            else:
                self._ended(running, code, is_stopping=is_stopping)
        self._running = still_running

    def _ended(self, running: Running, code: int, *, is_stopping: bool) -> None:
        """Records how a job ended, then gives its lock back."""
        job, entry = running.job, running.entry
        entry.ended, entry.exit_code = time.time(), code
        log = self._record.log_file(job).read_bytes()[running.log_start :].decode("utf-8", errors="replace")
        is_last = running.at + 1 == len(job.commands)
        if code == 0 and is_last:
            entry.run, entry.values = outcome(job, log)
            entry.state = State.DONE
            if is_complete(job, entry):
                entry.whole = is_whole(job, Path(entry.run), entry.started)
            else:
                entry.state, entry.error = State.FAILED, f"exit code 0, but {why_incomplete(job, entry)}"
        elif not (is_stopping and (code in STOPPED_CODES or code == 0)):
            entry.state, entry.error = State.FAILED, error_line(log, code)
        self._record.write(job, entry)
        os.close(running.lock)
        detail = f": {entry.error}; {entry.log}" if entry.error else f", {(entry.ended - entry.started) / 60:.1f} min"
        self._tell(f"{entry.state:<10} {job.title}{detail}")

    def _end_children(self, number: int) -> None:
        for running in self._running:
            running.process.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
        if self._running:
            self._tell(f"stopping: {len(self._running)} running save and end; a second signal ends them at once")

    def _abandon(self) -> None:
        """Ends children that are left when the loop itself failed; they save."""
        for running in self._running:
            running.process.terminate()
        for running in self._running:
            running.process.wait()
            os.close(running.lock)
        self._running = []


def outcome(job: Job, log: str) -> tuple[str, dict[str, float]]:
    """Returns a job's run folder and a trial's validation figures, as its commands wrote them."""
    if job.kind == "transfer":
        return job.commands[0][job.commands[0].index("--output") + 1], {}
    if job.kind == "cell":
        runs = [line.split(maxsplit=1)[1] for line in log.splitlines() if line.startswith("run ")]
        return (runs[-1] if runs else ""), {}
    return trial_folder(job), validation_figures(log)


def validation_figures(log: str) -> dict[str, float]:
    """Returns what ``m2pt fit --validate`` wrote as its last line; empty if that is something else."""
    lines = log.splitlines()
    try:
        figures: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return {name: float(figures[name]) for name in (ACCURACY, LOSS)}
    except (ValueError, TypeError, KeyError):
        return {}


def trial_folder(job: Job) -> str:
    """Returns the run folder that a trial's first command names."""
    words = job.commands[0]
    return words[words.index("--run") + 1]


def error_line(log: str, code: int) -> str:
    """Returns what to say about a job that failed: our own errors' first line, else the last line of its log."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    lines = [line.strip() for line in log.splitlines() if line.strip() and not line.startswith("$ ")]
    own = [line for line in lines[-3:] if line.startswith("error: ")]
    return (own[-1] if own else lines[-1] if lines else f"exit code {code}")[:LONGEST_ERROR]


def is_whole(job: Job, run: Path, since: float) -> bool:
    """Tells whether all of a job was done since a time: only then its seconds tell what such a job takes."""
    if job.kind == "transfer":
        return all(path.stat().st_mtime >= since for path in run.rglob(f"*{PREDICTIONS}"))
    starts = read_run_record(run).get(MADE_WITH, [])
    # The record's times have whole seconds.
    return len(starts) == 1 and datetime.fromisoformat(starts[0]["started"]).timestamp() >= int(since)
