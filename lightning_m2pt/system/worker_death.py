"""What is said when a loader worker is gone."""

import re

from lightning_m2pt.errors import EnvironmentFailure

DEAD_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? (?P<process>[0-9, ]+)\)(?P<how>[^.]*)")


def worker_death(error: RuntimeError) -> EnvironmentFailure | None:
    """Returns what to tell a user of an error by which PyTorch reports a dead loader worker; None for other errors."""
    match = DEAD_WORKER.search(str(error))
    if match is None:
        return None
    how = match["how"].strip().replace("is killed by", "was killed by") or "is gone"
    return EnvironmentFailure(
        f"loader worker {match['process']} {how}",
        where="data.num_workers",
        expected="memory, and shared memory (/dev/shm), for all workers; the system kills one that takes too much",
        hint="ask for more memory, or take fewer workers or 0; the same command goes on from the last step",
    )
