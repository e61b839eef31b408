"""Whether a program that somebody else wrote ends: tried in a process that may take little of the machine."""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

CPU_SECONDS = 10
WAITED_SECONDS = 60.0
MORE_BYTES = 1 << 30
"""What the tried work may take: processor time, time on a clock, and memory beyond what this process has."""

TOO_MUCH = 3


def ends_soon(work: Callable[[], object]) -> bool:
    """Tells whether work ends within limits of time and memory, however it ends.

    It is done in a forked copy of this process, which a system without ``fork`` has not: there the answer is yes.

    Args:
        work: What is tried. Nothing of it is left afterwards.
    """
    if not hasattr(os, "fork"):
        return True
    child = os.fork()
    if child == 0:
        code = TOO_MUCH
        try:
            limit_this_process()
            work()
            code = 0
        except MemoryError:
            pass
        except BaseException:
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + WAITED_SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.WIFEXITED(status) and os.WEXITSTATUS(status) != TOO_MUCH
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def limit_this_process() -> None:
    """Limits the processor time and memory of this process, as far as the system lets it."""
    sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (until the process ends)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MORE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
