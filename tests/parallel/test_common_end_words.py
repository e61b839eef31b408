"""What a process says of another one's end, and that one which is slow is not taken for one that is gone."""

import threading

import pytest
from torch import distributed
from torch.distributed import DistNetworkError, HashStore

from lightning_m2pt.parallel import common_end
from lightning_m2pt.parallel.common_end import CommonEnd, gone


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
