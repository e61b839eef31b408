"""The helper itself: ranks see each other, and one that fails, dies or hangs ends the test by its name."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from tests.support.ranks import RanksFailedError, on_ranks


def summed(number: int) -> tuple[int, float, str]:
    torch.distributed.init_process_group("gloo")
    value = torch.tensor([float(number + torch.distributed.get_rank())])
    torch.distributed.all_reduce(value)
    return torch.distributed.get_rank(), float(value), os.environ["LOCAL_RANK"]


def test_ranks_exchange_tensors_and_answer_in_order() -> None:
    assert on_ranks(2, summed, 10) == [(0, 21.0, "0"), (1, 21.0, "1")]


def test_variables_can_be_given() -> None:
    assert on_ranks(1, lambda: os.environ["WORLD_SIZE"], environment={"WORLD_SIZE": "many"}) == ["many"]


def of_rank_1(act: str) -> None:
    if os.environ["RANK"] == "1":
        if act == "raise":
            raise SystemExit(3)
        if act == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(100)


@pytest.mark.parametrize(
    ("act", "reason"), [("raise", "SystemExit: 3"), ("die", "exit code -9"), ("hang", "its time was over")]
)
def test_one_that_fails_is_named(act: str, reason: str) -> None:
    with pytest.raises(RanksFailedError) as raised:
        on_ranks(2, of_rank_1, act, timeout=3)
    assert list(raised.value.reasons) == [1]
    assert reason in raised.value.reasons[1]


def with_child(folder: Path) -> None:
    child = subprocess.Popen(["sleep", "100"])
    (folder / "pid").write_text(str(child.pid))


def test_children_of_a_rank_end_with_it(tmp_path: Path) -> None:
    on_ranks(1, with_child, tmp_path)
    status = Path("/proc") / (tmp_path / "pid").read_text() / "stat"
    assert not status.exists() or status.read_text().split()[2] == "Z"
