"""Every flag of the model reaches ``load``, bad pictures come before weights, and no answer drives a terminal."""

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_m2pt.commands.ask import Found, write_beside
from lightning_m2pt.commands.terminal.conversation import Conversation, talk_at_terminal
from lightning_m2pt.commands.terminal.writing import write_streamed
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main
from lightning_m2pt.system.console import VisibleConsole
from tests.commands.terminal.test_pictures import Terminal

SAID = "\x1b[2Jcleared\u202e"
GIVEN = {"base": "b", "revision": "r", "device": "d", "dtype": "bfloat16", "quantization": "int8"}


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What ``load`` is asked for, which then loads nothing."""
    found: list[dict[str, object]] = []

    def load(source: str, **named: object) -> None:
        found.append({"source": source, **named})
        raise BadInputError("nothing is loaded")

    monkeypatch.setattr("lightning_m2pt.commands.terminal.model.load", load)
    return found


def test_every_flag_of_the_model_reaches_load(loads: list[dict[str, object]], pictures: list[Path]) -> None:
    flags = [word for name, value in GIVEN.items() for word in (f"--{name}", value)]
    assert main(["ask", "RUN", str(pictures[0]), "What?", *flags]) == 2
    assert main(["chat", "RUN", str(pictures[0]), *flags]) == 2
    assert loads == 2 * [{"source": "RUN", **GIVEN}]


def test_a_picture_that_is_none_comes_before_weights(loads: list[dict[str, object]], tmp_path: Path) -> None:
    assert main(["ask", "RUN", str(tmp_path / "none.png"), "What?"]) == 2
    assert main(["chat", "RUN", str(tmp_path / "none.png")]) == 2
    assert loads == []


def test_what_a_model_says_does_not_drive_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    console = VisibleConsole(file=terminal, force_terminal=True, color_system=None, width=80, highlight=False)
    for module in ("lightning_m2pt.commands.terminal.writing", "lightning_m2pt.commands.ask"):
        monkeypatch.setattr(f"{module}.sys", SimpleNamespace(stdout=terminal))
        monkeypatch.setattr(f"{module}.OUT", console)
    write_streamed(iter([SAID[:5], SAID[5:]]), "tuned")
    write_beside({"tuned": Found(SAID), "frozen": Found("", {"\x1b[1myes": -1.0})})
    written = terminal.getvalue()
    assert "\x1b[2J" not in written
    assert "\x1b[1myes" not in written
    assert "\u202e" not in written
    assert written.count("\\x1b[2Jcleared") == 2


def test_ctrl_c_is_afterwards_what_it_was_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(*_: object) -> None:
        """Somebody's."""

    def ended(_prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", ended)
    before = signal.signal(signal.SIGINT, own)
    try:
        talk_at_terminal(Conversation({}, 5, shows_pictures=False), None)
        assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)
