"""Wall seconds of work on a device."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

WARM_UP_CALLS = 2


def wait_for(device: str) -> None:
    """Returns once the device has nothing left to do."""
    if device == "cuda":
        torch.cuda.synchronize()


def wall_seconds(work: Callable[[], Any], device: str, repeats: int) -> float:
    """Returns the median wall seconds of one call, warmed up."""
    seconds = []
    for _ in range(WARM_UP_CALLS + repeats):
        wait_for(device)
        started = time.perf_counter()
        work()
        wait_for(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[WARM_UP_CALLS:])
