"""A function on several ranks: processes forked from this one, with the variables that torchrun would set."""

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any

GRACE = 10.0
"""Seconds that the other ranks have left once one has failed: long enough to fail by themselves, if they do."""


class RanksFailedError(AssertionError):
    """Some ranks raised, died or did not end in time.

    Attributes:
        reasons: What became of each rank that gave no result, by rank.
    """

    def __init__(self, reasons: dict[int, str]) -> None:
        self.reasons = reasons
        super().__init__("\n".join(f"rank {rank}: {reason}" for rank, reason in sorted(reasons.items())))


def on_ranks(
    number: int,
    function: Callable[..., Any],
    *arguments: Any,
    timeout: float = 120,
    environment: dict[str, str] | None = None,
) -> list[Any]:
    """Calls ``function(*arguments)`` in ``number`` processes and returns their results in order of rank.

    A rank is forked, so whatever this process has imported costs nothing again, and ``function`` may be a closure; its
    result is pickled. A function that is to be refused catches what it expects and returns it.

    Args:
        number: World size; all ranks are of one node.
        function: What each rank does; it finds its rank in ``os.environ``.
        *arguments: Handed on as they are.
        timeout: Seconds after which whatever still runs is killed, with its children.
        environment: Further variables, which go before torchrun's.

    Raises:
        RanksFailedError: If a rank raises, ends without a result, or does not end in time.
    """
    variables = torchrun_variables(number) | (environment or {})
    ranks = [start(rank, variables, function, arguments, timeout) for rank in range(number)]
    try:
        return collected([connection for _, connection in ranks], [process for process, _ in ranks], timeout)
    finally:
        for process, connection in ranks:
            connection.close()
            end_with_children(process)


def torchrun_variables(number: int) -> dict[str, str]:
    """Returns what torchrun sets on one node, but for the ranks, which differ."""
    return {
        "WORLD_SIZE": str(number),
        "LOCAL_WORLD_SIZE": str(number),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "TORCHELASTIC_RUN_ID": "tests",
        "GLOO_SOCKET_IFNAME": "lo",
    }


def free_port() -> int:
    """Returns a port that nobody listens on at this moment."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def start(
    rank: int, variables: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...], timeout: float
) -> tuple[ForkProcess, Connection]:
    """Forks one rank and returns it with the connection that its result comes through."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=(rank, variables, function, arguments, timeout, theirs))
    process.start()
    theirs.close()  # so that the end of the process is the end of the connection
    return process, ours


def run(
    rank: int,
    variables: dict[str, str],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    timeout: float,
    connection: Connection,
) -> None:
    """Is one rank: calls the function and sends (whether it returned, its result or its traceback)."""
    os.setsid()  # a group of its own, so that workers end with it
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank)} | variables)
    faulthandler.dump_traceback_later(timeout, file=2)  # where it hangs, just before it is killed
    signal.alarm(int(timeout) + 5)  # also if the test process is gone
    try:
        outcome: tuple[bool, Any] = True, function(*arguments)
    except BaseException:
        outcome = False, traceback.format_exc()
    try:
        connection.send(outcome)
    except Exception:  # a result that cannot be pickled
        connection.send((False, traceback.format_exc()))
    with contextlib.suppress(EOFError):
        connection.recv()  # rank 0 holds the store that others may still ask: all end together


def collected(connections: list[Connection], processes: list[ForkProcess], timeout: float) -> list[Any]:
    """Waits for all ranks; returns their results.

    Raises:
        RanksFailedError: If not all have one.
    """
    until = time.monotonic() + timeout
    results: dict[int, Any] = {}
    reasons: dict[int, str] = {}
    while len(results) + len(reasons) < len(connections):
        waiting = [rank for rank in range(len(connections)) if rank not in results and rank not in reasons]
        ready = wait([connections[rank] for rank in waiting], timeout=max(0.0, until - time.monotonic()))
        if not ready:
            reasons |= dict.fromkeys(waiting, "had not ended when its time was over")
        for rank in waiting:
            if connections[rank] not in ready:
                continue
            try:
                has_returned, outcome = connections[rank].recv()
            except (EOFError, ConnectionResetError):
                processes[rank].join(GRACE)
                has_returned, outcome = False, f"ended without a result, exit code {processes[rank].exitcode}"
            (results if has_returned else reasons)[rank] = outcome
        if reasons:
            until = min(until, time.monotonic() + GRACE)
    if reasons:
        raise RanksFailedError(reasons)
    return [results[rank] for rank in range(len(connections))]


def end_with_children(process: ForkProcess) -> None:
    """Waits a moment for a rank that has nothing left to do, then kills its group."""
    process.join(1.0)
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join(GRACE)
