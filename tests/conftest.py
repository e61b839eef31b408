"""What holds for every test: one compute thread a worker, and no network."""

import os
import socket

import pytest

import lightning_m2pt.torchvision_guard  # noqa: F401  (test files may import Lightning first)

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

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
