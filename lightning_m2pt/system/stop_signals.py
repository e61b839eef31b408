"""The signals that ask a process to stop: noted while there is work to finish, and kept away from loader workers.

A terminal sends SIGINT to a whole group of processes, and a scheduler SIGTERM to all of a job's: loader workers too.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from lightning_m2pt.errors import EnvironmentFailure, M2PTError
from lightning_m2pt.system.standard_streams import say_error

EXIT_CODE_BASE = 128
"""A process that a signal ended exits with this plus the signal's number: 130 for SIGINT, 143 for SIGTERM."""

STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if name in vars(signal)
)
"""A terminal's Ctrl-C, a scheduler's end, SLURM's warning before it, a terminal or connection that is gone; on a system
without one of them this can be imported all the same, to say that it is not supported."""


class StopSignals:
    """Notes the first stop signal, so that what is under way can be finished; a second one ends the process at once.

    Attributes:
        received: Number of the signal; 0 before one came.
    """

    def __init__(self) -> None:
        self.received = 0
        self._handled = contextlib.ExitStack()

    @property
    def exit_code(self) -> int:
        """What the process ends with after the signal."""
        return EXIT_CODE_BASE + self.received

    def take_over(self) -> None:
        """Handles the signals from now on."""
        self._handled.enter_context(stop_signals_handled_by(self._note))

    def give_back(self) -> None:
        """Leaves the signals to whoever handled them before."""
        self._handled.close()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.received:
            raise SystemExit(EXIT_CODE_BASE + number)
        self.received = number


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Lets a stop signal end the block as ``SystemExit``, with the exit code a shell expects and all cleaning up done.

    Python itself cleans up after SIGINT only, and Lightning makes exit code 1 of that. Cleaning up may fail where a
    signal came between two things that belong together: Lightning moves a module whose weights are still to be loaded,
    and torch refuses that. Such an error is the signal's. One that tells a user of a file or a setting is said before
    the end: what was to be written may not be there.
    """
    with stop_signals_handled_by(_end):
        try:
            yield
        except Exception as error:
            if (stop := _stop_behind(error)) is None:
                raise
            if isinstance(error, M2PTError | OSError) and not isinstance(error, BrokenPipeError):
                say_error(_first_line(error))
            raise stop from error


@contextlib.contextmanager
def stop_signals_handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Calls a handler for stop signals while the block runs; afterwards they are whose they were.

    A hang-up that the process was told to ignore (nohup) stays ignored. In another thread than the main one nothing is
    handled: Python lets only that handle signals.

    Args:
        handler: Given the signal's number and the frame that it came in.
    """
    previous: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        previous = {number: signal.signal(number, handler) for number in signals_to_handle()}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def signals_to_handle() -> list[signal.Signals]:
    """Returns the signals that are not to be ignored."""
    hang_up_is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in STOP_SIGNALS if not (number == signal.SIGHUP and hang_up_is_ignored)]


@contextlib.contextmanager
def stop_signals_held_back() -> Iterator[None]:
    """Lets stop signals wait while loader workers start: a worker is deaf to them only once it runs."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_stopping_to_the_main_process(worker: int) -> None:
    """Makes a loader worker deaf to stop signals, but for the one by which its parent ends it.

    The parent finishes the step it is in, for which it needs its workers. A DataLoader's ``worker_init_fn``.

    Args:
        worker: Number of the worker.
    """
    for number in STOP_SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    # Ignoring SIGTERM would also ignore the parent, which waits for its workers after it has sent it.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Thread(target=_end_with, args=(os.getppid(),), name=f"worker-{worker}-stop", daemon=True).start()


def _end_with(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)


def _stop_behind(error: BaseException) -> SystemExit | None:
    """Returns the end by a stop signal in whose handling an error arose."""
    cause: BaseException | None = error
    seen: set[int] = set()  # a library may have made a circle of errors
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, SystemExit) and cause.code in {EXIT_CODE_BASE + number for number in STOP_SIGNALS}:
            return SystemExit(cause.code)
        cause = cause.__context__
    return None


def _first_line(error: M2PTError | OSError) -> str:
    """Returns what is wrong and where."""
    if isinstance(error, OSError):
        error = EnvironmentFailure(error.strerror or str(error), where=str(error.filename or "file system"))
    return error.message().splitlines()[0]


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(EXIT_CODE_BASE + number)
