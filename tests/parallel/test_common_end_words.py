"""What a process says of another one's end, and that one which is slow is not taken for one that is gone."""

import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from torch import distributed
from torch.distributed import DistNetworkError, HashStore

from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.parallel import common_end
from lightning_m2pt.parallel.common_end import FAILED, TOLD, CommonEnd, gone, is_of_anothers_end, tell_the_others


def test_what_torch_says_stands_beside_the_guess_that_a_process_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "get_rank", lambda: 0)
    error = gone("NCCL error in: x.cpp:1,\n  remote process exited or there was a network error")
    assert "is gone, without a word (torch: NCCL error in: x.cpp:1, remote process exited" in error.what
    assert gone().what == "another process of this run is gone, without a word"


class SlowStore(HashStore):
    """A store that cannot be asked the first time."""

    def __init__(self, fails: int) -> None:
        super().__init__()
        self.fails = fails
        self.asked = threading.Semaphore(0)

    def check(self, keys: list[str]) -> bool:
        self.asked.release()
        self.fails -= 1
        if self.fails >= 0:
            raise DistNetworkError("timed out")
        return False


def look(fails: int, monkeypatch: pytest.MonkeyPatch) -> tuple[CommonEnd, SlowStore, list[int], threading.Thread]:
    """Lets a thread look into a store that cannot be asked so many times; a process is not ended, but noted."""
    ended: list[int] = []
    common, store = CommonEnd(), SlowStore(fails)

    def end(code: int) -> None:
        ended.append(code)
        common._is_over.set()

    monkeypatch.setattr(common_end, "LOOKS_SECONDS", 0.01)
    monkeypatch.setattr(common_end, "GONE_SECONDS", 0.02)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr("os._exit", end)
    thread = threading.Thread(target=common._look, args=(store,), daemon=True)
    thread.start()
    return common, store, ended, thread


def asked(store: SlowStore, times: int) -> bool:
    return all(store.asked.acquire(timeout=20) for _ in range(times))


@pytest.mark.parametrize(("fails", "codes"), [(1, []), (2, [3])])
def test_a_store_that_is_slow_once_ends_nobody(fails: int, codes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    common, store, ended, thread = look(fails, monkeypatch)
    assert asked(store, 2)  # when it failed, and when that was looked at again
    if not codes:
        assert asked(store, 2)  # it goes on looking
    else:
        thread.join(20)
    common._is_over.set()
    thread.join(20)
    assert not thread.is_alive()
    assert ended == codes


WORDS = {"rank": "0", "host": "a", "kind": "BadInputError", "what": "no picture", "where": "record 7", "hint": "look"}


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> HashStore:
    """Lets this process be the second of two; returns their store."""
    store = HashStore()
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(common_end, "number_of_processes", lambda: 2)
    monkeypatch.setattr(common_end, "default_store", lambda: store)
    monkeypatch.setattr(common_end, "own_connection", lambda *_: store)
    return store


NO_LAUNCHER: Any = SimpleNamespace(strategy=SimpleNamespace(launcher=None))


def test_a_process_that_waits_for_ever_ends_with_anothers_code_and_says_that_it_knows(
    second_of_two: HashStore, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    common = CommonEnd()
    monkeypatch.setattr("os._exit", lambda code: (ended.append(code), common._is_over.set()))
    monkeypatch.setattr(common_end, "LOOKS_SECONDS", 0.01)
    monkeypatch.setattr(common_end, "GRACE_SECONDS", 0.02)
    second_of_two.set(FAILED, json.dumps(WORDS))
    thread = threading.Thread(target=common._look, args=(second_of_two,), daemon=True)
    thread.start()
    thread.join(20)
    assert ended == [2]
    assert capfd.readouterr().err.splitlines() == ["error: rank 0 on a: record 7: no picture", "  hint: look"]
    assert second_of_two.check([f"{TOLD}/1"])


def test_one_process_watches_over_nobody() -> None:
    common, before = CommonEnd(), threading.active_count()
    common.watch()
    assert (common._original, threading.active_count()) == (None, before)


def test_what_torch_says_of_anothers_end_becomes_what_that_one_has_said(second_of_two: HashStore) -> None:
    second_of_two.set(FAILED, json.dumps(WORDS))
    with pytest.raises(BadInputError, match="rank 0 on a: record 7: no picture"), CommonEnd().around(NO_LAUNCHER):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:9")
    assert second_of_two.check([f"{TOLD}/1"])


def test_the_words_of_the_process_that_failed_first_stay(second_of_two: HashStore) -> None:
    second_of_two.set(FAILED, json.dumps(WORDS))
    second_of_two.set(f"{TOLD}/0", "1")
    tell_the_others(second_of_two, {**WORDS, "rank": "1", "what": "later"}, NO_LAUNCHER)
    assert json.loads(second_of_two.get(FAILED)) == WORDS
    assert second_of_two.check([f"{TOLD}/1"])


def caused_by(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "is_anothers"),
    [
        (RuntimeError("NCCL error: remote process exited"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("Connection reset"), False),
        (DistNetworkError("timed out"), True),
        (EnvironmentFailure("Broken pipe"), False),
        (caused_by(EnvironmentFailure("another process has ended"), RuntimeError("gloo/x: Broken pipe")), True),
        (caused_by(BadInputError("bad"), ValueError("worse")), False),
    ],
    ids=lambda value: str(value)[:30],
)
def test_which_errors_are_of_anothers_end(error: Exception, is_anothers: bool) -> None:
    assert is_of_anothers_end(error) == is_anothers
