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
