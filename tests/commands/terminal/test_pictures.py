"""Pictures in a terminal are what they show, pixel by pixel, and nothing is written where no terminal reads."""

import base64
import io
import re
from types import SimpleNamespace

import numpy
import pytest
from PIL import Image
from rich.console import Console

from lightning_m2pt.commands.terminal.pictures import (
    CHUNK,
    fitted,
    half_blocks,
    iterm_sequences,
    kitty_sequences,
    show_picture,
    way_of_terminal,
)
from lightning_m2pt.system.console import VisibleConsole

PICTURES = "lightning_m2pt.commands.terminal.pictures"
CELL = re.compile("\x1b\\[38;2;(\\d+);(\\d+);(\\d+)(?:;48;2;(\\d+);(\\d+);(\\d+))?m\u2580")


class Terminal(io.StringIO):
    """Standard output that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def picture(width: int = 5, height: int = 7) -> Image.Image:
    drawn = numpy.random.default_rng(0).integers(0, 256, (height, width, 3), numpy.uint8)
    return Image.fromarray(drawn)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    shown = Terminal()
    # Not sys.stdout itself: pytest puts its own there before the test begins.
    monkeypatch.setattr(f"{PICTURES}.sys", SimpleNamespace(stdout=shown))
    console = VisibleConsole(file=shown, force_terminal=True, color_system="truecolor", width=80, highlight=False)
    monkeypatch.setattr(f"{PICTURES}.OUT", console)
    for name in ("TERM", "TERM_PROGRAM", "TMUX"):
        monkeypatch.delenv(name, raising=False)
    return shown


@pytest.mark.parametrize("height", [6, 7])
def test_half_blocks_have_the_colours_of_the_pixels(terminal: Terminal, height: int) -> None:
    shown = picture(height=height)
    show_picture(shown)
    lines = [CELL.findall(line) for line in terminal.getvalue().splitlines()]
    assert [len(line) for line in lines] == [5] * (height - height // 2)
    rows = []
    for line in lines:
        rows.append([tuple(map(int, cell[:3])) for cell in line])
        if line[0][3]:
            rows.append([tuple(map(int, cell[3:])) for cell in line])
    assert numpy.array_equal(numpy.array(rows), numpy.asarray(shown))


def test_kitty_and_iterm_are_given_the_picture(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = picture(200, 90)
    for term, program, begin in (("xterm-kitty", "", "\x1b_G"), ("xterm-256color", "iTerm.app", "\x1b]1337;File=")):
        monkeypatch.setenv("TERM", term)
        monkeypatch.setenv("TERM_PROGRAM", program)
        terminal.seek(0)
        terminal.truncate()
        show_picture(shown)
        written = terminal.getvalue()
        assert written.startswith(begin)
        if program:
            (content,) = re.findall(":([A-Za-z0-9+/=]+)\x07\n$", written)
        else:
            parts = re.findall("\x1b_G([^;]*);([^\x1b]*)\x1b\\\\", written)
            assert "".join(f"\x1b_G{keys};{data}\x1b\\" for keys, data in parts) + "\n" == written
            assert [keys[-3:] for keys, _ in parts] == ["m=1"] * (len(parts) - 1) + ["m=0"]
            assert len(parts) > 1
            assert max(len(data) for _, data in parts) == CHUNK
            content = "".join(data for _, data in parts)
        with Image.open(io.BytesIO(base64.b64decode(content))) as read:
            assert numpy.array_equal(numpy.asarray(read), numpy.asarray(shown))


def test_which_way_a_terminal_has(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert way_of_terminal({"TERM": "xterm-kitty"}) == "kitty"
    assert way_of_terminal({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}) == "iterm"
    assert way_of_terminal({"TERM": "xterm-256color"}) == "blocks"
    # Variables of the terminal outside live on inside a multiplexer.
    assert way_of_terminal({"TERM": "xterm-kitty", "TMUX": "/tmp/x"}) == "blocks"
    assert way_of_terminal({"TERM": "screen-256color", "TERM_PROGRAM": "iTerm.app"}) == "blocks"
    monkeypatch.setattr(terminal, "encoding", "iso8859-1")
    assert way_of_terminal({"TERM": "xterm-kitty"}) == "none"


def test_without_colours_or_a_terminal_nothing_is_written(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    for system in (None, "standard"):
        console = Console(file=terminal, force_terminal=True, color_system=system)
        monkeypatch.setattr(f"{PICTURES}.OUT", console)
        show_picture(picture())
    pipe = io.StringIO()
    monkeypatch.setattr(f"{PICTURES}.sys", SimpleNamespace(stdout=pipe))
    monkeypatch.setenv("TERM", "xterm-kitty")
    show_picture(picture())
    assert pipe.getvalue() == terminal.getvalue() == ""


def test_a_picture_is_never_enlarged_and_keeps_its_shape() -> None:
    assert fitted(picture(), 40, 40).size == (5, 7)
    assert fitted(picture(400, 100), 40, 40).size == (40, 10)
    assert fitted(picture(3, 900), 40, 30).size == (1, 30)
    assert half_blocks(picture(3, 1)).plain == "\u2580" * 3
    assert next(iterm_sequences(picture(), 4)).startswith("\x1b]1337;File=inline=1;width=4;")
    assert next(kitty_sequences(picture(), 4)).startswith("\x1b_Ga=T,f=100,q=2,c=4,m=0;")
