"""Standard output and error that were closed before the process began, or that nobody reads any more."""

import contextlib
import os
import select
import signal
import sys
from typing import TextIO

from lightning_m2pt.errors import EnvironmentFailure

NOBODY_READS = 128 + getattr(signal, "SIGPIPE", 13)
"""The exit code that a shell expects of a program whose reader has gone, as in ``m2pt list methods | head -1``: 141."""


def open_closed_streams() -> None:
    """Opens the null device in the place of a standard output or error that the shell has closed (``>&-``).

    Python has ``None`` there, and the next file that is opened would get the stream's number: what a library or another
    program writes on standard output would be in that file.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is not None:
            continue
        if not is_open(number):
            to_null_device(number)
        # Until the process ends.
        setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def is_open(number: int) -> bool:
    """Tells whether a number is that of an open file."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def to_null_device(number: int) -> None:
    """Lets a number be the null device's."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:  # the device gets the number itself if that is the lowest free one
        os.dup2(null, number)
        os.close(null)
    os.set_inheritable(number, True)


def output_fault(met: OSError | None = None) -> OSError | None:
    """Writes what is still kept for standard output; returns what hinders that, after letting go of what was kept.

    Python would try again at the end of the process, with a notice of its own and exit code 120.

    Args:
        met: An error that the process has met. Where nothing is kept (PYTHONUNBUFFERED) it is the only trace.
    """
    fault: OSError | None
    try:
        sys.stdout.flush()
        fault = met if isinstance(met, BrokenPipeError) and has_no_reader(sys.stdout) else None
    except OSError as error:
        fault = error
    if fault is not None:
        with contextlib.suppress(OSError):  # a stream in memory has no number
            to_null_device(sys.stdout.fileno())
    return fault


def has_no_reader(stream: TextIO) -> bool:
    """Tells whether a stream is a pipe whose other end is closed: an error of another pipe is none of its."""
    try:
        looked = select.poll()
        looked.register(stream.fileno(), 0)  # an error is always told
        return any(event & select.POLLERR for _, event in looked.poll(0))
    except OSError:  # a stream in memory has no number
        return False


def end_without_output(fault: OSError) -> int:
    """Says what a fault of standard output means, if there is somebody to say it to.

    Args:
        fault: What hindered writing.

    Returns:
        The exit code.
    """
    if isinstance(fault, BrokenPipeError):
        return NOBODY_READS
    failure = EnvironmentFailure(
        fault.strerror or str(fault), where="standard output", expected="a place that takes what is written there"
    )
    say_error(failure.message())
    return failure.exit_code


def say_error(message: str) -> None:
    """Writes a message on standard error; where that cannot be written the exit code has to say it."""
    with contextlib.suppress(OSError):
        sys.stderr.write(message + "\n")
        sys.stderr.flush()
