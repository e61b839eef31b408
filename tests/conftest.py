"""What holds for every test: one compute thread a worker, no network, and nothing of the test before."""

import os
import socket
import sys
from collections.abc import Iterator

import pytest

import lightning_m2pt.torchvision_guard  # noqa: F401  (test files may import Lightning first)

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

SEEDS = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost", "0.0.0.0")


def pytest_configure() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses every connection that would leave the machine; processes that talk to each other still can."""
    connect = socket.socket.connect

    def connect_to_this_machine_only(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in LOOPBACK_HOSTS:
            raise AssertionError(f"a test tried to reach {address[0]}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_to_this_machine_only)


@pytest.fixture(autouse=True)
def nothing_of_the_test_before() -> Iterator[None]:
    """Takes back what a Trainer of several processes leaves: ranks and seed in variables, and Lightning's own rank.

    Otherwise the next test would be another process than the first, which logs nothing, or draw by another seed. A
    run of a fixture that many tests share has left its seed before the first of them begins.
    """
    for name in SEEDS:
        os.environ.pop(name, None)
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})
    ranks = sys.modules.get("lightning_utilities.core.rank_zero")
    if ranks is not None:
        ranks.rank_zero_only.rank = 0
