"""Processes that meet, and do not reach each other by the ways that their own messages go."""

import time
from datetime import timedelta
from typing import Any

import pytest
from torch import distributed

from lightning_m2pt.errors import EnvironmentFailure
from lightning_m2pt.system import rank_group
from lightning_m2pt.system.rank_group import RankGroup, ranks_of_job
from tests.support.ranks import on_ranks


def test_processes_that_gloo_cannot_connect_are_told_how_to_name_an_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_group(**_: Any) -> None:
        raise RuntimeError("[gloo/transport/tcp/pair.cc] connect [127.0.1.1]:9: Connection refused\nmore lines")

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda *_: 2)
    monkeypatch.setattr(distributed, "get_rank", lambda *_: 1)
    monkeypatch.setattr(distributed, "new_group", no_group)
    with pytest.raises(EnvironmentFailure, match=r"over gloo: .*127\.0\.1\.1\]:9: Connection refused") as caught:
        ranks_of_job()
    assert caught.value.hint.startswith("GLOO_SOCKET_IFNAME=")
    assert caught.value.__cause__ is None
    assert "\n" not in caught.value.what


def waits_longer_than_it_connects() -> int:
    rank_group.LONGEST_CONNECTING = timedelta(seconds=1)
    distributed.init_process_group("gloo")
    ranks: RankGroup = ranks_of_job()
    return ranks.of_first(slow_answer)


def slow_answer() -> int:
    time.sleep(2)
    return 7


def test_others_wait_for_the_first_for_longer_than_they_may_take_to_connect() -> None:
    assert on_ranks(2, waits_longer_than_it_connects, timeout=60) == [7, 7]


def alone_and_together() -> tuple[int, list[int]]:
    """Returns how often this process was asked for an answer of the first, and the sums of what all have done."""
    distributed.init_process_group("gloo")
    ranks, calls, sums = ranks_of_job(), 0, list[int]()

    def answer() -> int:
        nonlocal calls
        calls += 1
        return ranks.rank

    assert ranks.of_first(answer) == 0

    def work() -> None:
        ranks.count(ranks.rank + 2)
        until = time.monotonic() + 20
        while (done := ranks.count(0)) != 5 and time.monotonic() < until:
            time.sleep(0.01)
        sums.append(done)

    ranks.together(work)
    ranks.together(lambda: sums.append(ranks.count(0)))  # another pass counts anew
    return calls, sums


def test_the_first_alone_answers_and_all_count_together() -> None:
    assert on_ranks(2, alone_and_together, timeout=60) == [(1, [5, 0]), (0, [5, 0])]


def test_one_process_counts_by_itself() -> None:
    alone, sums = RankGroup(), list[int]()

    def work() -> None:
        sums.extend(alone.count(number) for number in (2, 3))

    for _ in range(2):
        alone.together(work)
    assert sums == [2, 5, 2, 5]
