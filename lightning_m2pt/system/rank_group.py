"""What the processes of one job agree on outside of a training: who does what alone, and that all stop together.

Messages go through a gloo group of their own, on the CPU: NCCL gives up after minutes, and the first process may have
to wait for hours until another job has answered a set.
"""

import contextlib
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import TypeVar

import torch
from torch import distributed
from torch.distributed import PrefixStore, ProcessGroup
from torch.distributed.distributed_c10d import _get_default_store, _set_pg_timeout

from lightning_m2pt.errors import BadInputError, EnvironmentFailure, ExitCode, M2PTError

T = TypeVar("T")

LONGEST_WAIT = timedelta(days=14)
"""After which a process that is alive is given up; one that has died is noticed at once."""
LONGEST_CONNECTING = timedelta(minutes=10)
"""After which processes that cannot reach each other are told so; by then all of them have met already."""
LOOKS_AGAIN = 0.02
"""Seconds between two looks: a wait inside torch would keep Python from handling a signal."""
LOOKS_FOR_NEWS = 25
"""Every how many looks the store is asked, too, whether a process is missed."""
LOST = "lost"


class RankGroup:
    """The processes of a job, of which this is one; without torch's process group it is the only one.

    All of them have to call the same methods in the same order.

    Args:
        group: A group over all processes that works on the CPU; None for one process alone.

    Attributes:
        rank: Number of this process, from 0.
        size: How many there are.
    """

    def __init__(self, group: ProcessGroup | None = None) -> None:
        self.rank = 0 if group is None else distributed.get_rank(group)
        self.size = 1 if group is None else distributed.get_world_size(group)
        self._group = group
        self._store: PrefixStore | None = None
        self._news: PrefixStore | None = None
        name = self._told(uuid.uuid4().hex)
        if group is not None:
            self._news = PrefixStore(name, _get_default_store())
        self._passes = 0
        self._counted = 0

    def of_first(self, function: Callable[[], T]) -> T:
        """Calls a function in the first process, and returns or raises in all what it returned or raised there.

        Args:
            function: What it returns goes through pickle.

        Raises:
            EnvironmentFailure: If another process has ended.
        """
        if self._group is None:
            return function()
        result, error = None, None
        if self.rank == 0:
            try:
                result = function()
            except (M2PTError, OSError, SystemExit) as raised:
                error = raised
        result, error = self._told((result, error))
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # the first process's

    def together(self, work: Callable[[], object]) -> None:
        """Works in all processes at a time; one that an error of ours or a signal ends asks all to stop.

        Args:
            work: It asks ``stop_code`` now and then.

        Raises:
            M2PTError: What one of them raised, in all.
            SystemExit: If only signals ended them, with the exit code of one, in all.
            EnvironmentFailure: If another process has ended.
        """
        if self._group is None:
            self._counted = 0
            work()
            return
        self._passes += 1
        assert self._news is not None
        self._store = PrefixStore(str(self._passes), self._news)
        ended: BaseException | None = None
        try:
            work()
        except (M2PTError, SystemExit) as raised:
            ended = raised
            self._ask_to_stop(raised)
        except BaseException as raised:
            self._ask_to_stop(raised)
            raise
        signals: list[SystemExit] = []
        self._wait_for_all(signals)
        others = self._told_by_all(ended or next(iter(signals), None))
        for kind in (M2PTError, SystemExit):
            for other in others:
                if isinstance(other, kind):
                    raise other

    def stop_code(self) -> int:
        """Returns the exit code with which one of the processes asks all to stop; 0 as long as none does."""
        store = self._store
        if store is None or not self._collectively(lambda: store.check(["stop"])):
            return 0
        return int(store.get("stop"))

    def count(self, number: int) -> int:
        """Adds to what all processes have done of the work they are at, and returns their sum."""
        store = self._store
        if store is not None:
            return self._collectively(lambda: store.add("done", number))
        self._counted += number
        return self._counted

    def refuse_unless_same(self, value: object, where: str, what: str) -> None:
        """Compares a value of all processes.

        Args:
            value: It goes through pickle.
            where: What it stands in.
            what: What it is called.

        Raises:
            BadInputError: In all processes, if one has another.
        """
        if self._group is not None:
            values = self._told_by_all(value)
            other = next((rank for rank, each in enumerate(values) if each != values[0]), None)
            if other is not None:
                raise BadInputError(
                    f"{what} of process {other}, counted from 0, is not that of process 0",
                    where=where,
                    expected="the same files and the same code on all nodes",
                )

    def _ask_to_stop(self, reason: BaseException) -> None:
        assert self._store is not None
        code = reason.code if isinstance(reason, SystemExit) else getattr(reason, "exit_code", ExitCode.BUG)
        self._store.set("stop", str(int(code or ExitCode.BUG)))

    def _told(self, value: T) -> T:
        if self._group is None:
            return value
        values = [value]
        self._wait_for_all()
        self._collectively(lambda: distributed.broadcast_object_list(values, 0, self._group, torch.device("cpu")))
        return values[0]

    def _told_by_all(self, value: T) -> list[T]:
        values: list[T] = [value] * self.size
        self._wait_for_all()
        self._collectively(lambda: distributed.all_gather_object(values, value, self._group))
        return values

    def _wait_for_all(self, signals: list[SystemExit] | None = None) -> None:
        """Waits until all have come here.

        Args:
            signals: Where the first signal is put that comes meanwhile, which those at work are told of; None and a
                second one end the waiting.
        """

        def wait() -> None:
            arrived = distributed.all_reduce(torch.zeros(1), group=self._group, async_op=True)
            looks = 0
            while not arrived.is_completed():
                looks += 1
                # One that is connected with the lost one only through others would wait for them.
                if looks % LOOKS_FOR_NEWS == 0 and self._news is not None and self._news.check([LOST]):
                    raise RuntimeError("another process misses one")
                try:
                    time.sleep(LOOKS_AGAIN)
                except SystemExit as signalled:
                    if signals is None or signals:
                        raise
                    signals.append(signalled)
                    self._ask_to_stop(signalled)
            arrived.wait()

        self._collectively(wait)

    def _collectively(self, exchange: Callable[[], T]) -> T:
        try:
            return exchange()
        except RuntimeError as error:
            if self._news is not None:
                with contextlib.suppress(RuntimeError):  # the first process, which holds the store, may be the lost one
                    self._news.set(LOST, "1")
            raise EnvironmentFailure(
                "another process of this job has ended",
                where=f"process {self.rank}, counted from 0, of {self.size}",
                expected="all of them until the end",
                hint="what that one has said is the reason; the same command goes on where it stopped",
            ) from error


def ranks_of_job() -> RankGroup:
    """Returns this job's processes: those that Lightning has brought together, or this one alone."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return RankGroup()
    return _group_of(distributed.group.WORLD)


@lru_cache(maxsize=1)
def _group_of(_world: ProcessGroup) -> RankGroup:
    """Returns the group of a world, made once: all processes make it together.

    Raises:
        EnvironmentFailure: If they cannot reach each other; NCCL and the store may go other ways between nodes.
    """
    try:
        group = distributed.new_group(backend="gloo", timeout=LONGEST_CONNECTING)
    except RuntimeError as error:
        said = str(error).partition("\n")[0]
        # Without the cause: to whoever reads that, it is what another process's end looks like.
        raise EnvironmentFailure(
            f"the processes of this job do not reach each other over gloo: {said:.120}",
            where=f"process {distributed.get_rank()}, counted from 0",
            expected="a network interface by which all nodes reach this one",
            hint="GLOO_SOCKET_IFNAME=NAME (`ip address` lists the names); without it the host's own name decides",
        ) from None
    _set_pg_timeout(LONGEST_WAIT, group)
    return RankGroup(group)
