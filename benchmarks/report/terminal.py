"""Draws what a real terminal of 80 columns and 24 rows shows while a command runs, or when it has ended.

python -m benchmarks.report.terminal docs/figures/terminal_tuning.svg --at "step 8 of" m2pt fit --config FILE
python -m benchmarks.report.terminal docs/figures/terminal_end.svg m2pt train --config FILE
"""

import argparse
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS, ROWS = 80, 24
CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


class Screen:
    """As much of a terminal as a progress bar and tables need: lines, colours, and rows that are written again."""

    def __init__(self) -> None:
        self.lines = [""]
        self.row = 0
        self._rewrites = False

    def feed(self, text: str) -> None:
        """Takes what a command writes."""
        place = 0
        while place < len(text):
            control = CONTROL.match(text, place)
            if control is not None:
                self._control(control[1], control[2], control[0])
                place = control.end()
                continue
            self._letter(text[place])
            place += 1

    def _letter(self, letter: str) -> None:
        if letter == "\r":
            self._rewrites = True
        elif letter == "\n":
            self._rewrites = False
            self.row += 1
            if self.row == len(self.lines):
                self.lines.append("")
        else:
            self._write(letter)

    def _control(self, number: str, letter: str, written: str) -> None:
        if letter == "m":
            self._write(written)
        elif letter == "A":
            self.row = max(0, self.row - int(number or 1))
            self._rewrites = True
        elif letter == "K":
            self.lines[self.row] = ""

    def _write(self, text: str) -> None:
        if self._rewrites:  # whoever goes back to a line's begin here writes all of it again
            self.lines[self.row] = ""
            self._rewrites = False
        self.lines[self.row] += text

    def shown(self) -> list[Text]:
        """Returns the last rows."""
        wrapped = Console(width=COLUMNS)
        rows = [row for line in self.lines for row in Text.from_ansi(line).wrap(wrapped, COLUMNS) or [Text()]]
        while rows and not rows[-1].plain.strip():
            rows.pop()
        return rows[-ROWS + 1 :]


def output_of(words: list[str]) -> Iterator[str]:
    """Yields what a command writes to a terminal of this size."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execvp(words[0], words)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    kept = b""
    try:
        while chunk := os.read(terminal, 65536):
            text = (kept + chunk).decode(errors="ignore")
            kept = (kept + chunk)[len(text.encode()) :]
            yield text
    except OSError:  # the command has closed its terminal
        pass
    finally:
        os.waitpid(process, 0)


def drawn(rows: list[Text], title: str) -> str:
    """Returns the rows as SVG."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text(f"$ {title}"))
    for row in rows:
        console.print(row, no_wrap=True, overflow="crop")
    return console.export_svg(title=f"{COLUMNS} x {ROWS}")


def main() -> None:
    """Runs the command and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--at", default="", help="draw the screen when a line first shows this; else at the end")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    own = parser.parse_args()
    words = own.command[1:] if own.command[:1] == ["--"] else own.command
    screen, is_drawn = Screen(), False
    program = [sys.executable, "-m", "lightning_m2pt.main", *words[1:]] if words[0] == "m2pt" else words
    for text in output_of(program):
        screen.feed(text)
        if not is_drawn and own.at and any(own.at in Text.from_ansi(line).plain for line in screen.lines[-3:]):
            own.output.write_text(drawn(screen.shown(), " ".join(words)), encoding="utf-8")
            is_drawn = True
    if not is_drawn:
        own.output.write_text(drawn(screen.shown(), " ".join(words)), encoding="utf-8")


if __name__ == "__main__":
    main()
