"""Where processes meet is looked at before weights load: nobody waits half an hour for what cannot come."""

import socket

import pytest

from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.system.meeting_place import check_meeting_place
from tests.support.ranks import free_port
from tests.support.small_experiment import small_words

TWO_NODES = ("--trainer.strategy", "ddp", "--trainer.devices", "1", "--trainer.num_nodes", "2")


@pytest.fixture
def taken_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_a_port_that_somebody_listens_on_is_refused_where_the_first_process_would_listen(taken_port) -> None:
    check_meeting_place("127.0.0.1", taken_port, listens=False)
    check_meeting_place("127.0.0.1", free_port(), listens=True)
    with pytest.raises(BadInputError, match=f"MASTER_PORT: port {taken_port} is taken"):
        check_meeting_place("127.0.0.1", taken_port, listens=True)


@pytest.mark.parametrize("address", ["a..b", "gpu-node-7"])
def test_an_address_of_no_machine_is_refused(monkeypatch, address) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    if address == "gpu-node-7":  # the first is refused before a name server is asked
        monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(BadInputError, match="MASTER_ADDR: no machine called") as refused:
        check_meeting_place(address, 1, listens=False)
    assert len(refused.value.message().splitlines()) == 3


def test_a_taken_port_ends_the_first_node_in_three_lines(capfd, monkeypatch, tmp_path, taken_port) -> None:
    for name, value in {"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken_port)}.items():
        monkeypatch.setenv(name, value)
    assert main(["fit", *small_words(tmp_path), *TWO_NODES]) == ExitCode.BAD_INPUT
    said = capfd.readouterr().err.strip().splitlines()
    assert said[0] == f"error: MASTER_PORT: port {taken_port} is taken on this machine"
    assert len(said) == 3


def test_a_first_process_that_never_comes_is_said_in_three_lines(capfd, monkeypatch, tmp_path) -> None:
    for name in ("LOCAL_RANK", "WORLD_SIZE"):  # Lightning sets them; afterwards they are gone again
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in {"NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}.items():
        monkeypatch.setenv(name, value)
    strategy = (
        "--trainer.strategy",
        "lightning.pytorch.strategies.DDPStrategy",
        "--trainer.strategy.timeout",
        "0:00:01",
    )
    assert main(["fit", *small_words(tmp_path), *TWO_NODES[2:], *strategy]) == ExitCode.ENVIRONMENT
    said = capfd.readouterr().err.strip().splitlines()
    assert [line for line in said if "did not find each other" in line]
    assert [line[:9] for line in said[-3:]] == ["error: MA", "  expecte", "  hint: w"]
    assert not [line for line in said if "Traceback" in line]
