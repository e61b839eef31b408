"""Nothing that a file holds drives a terminal, wherever it is shown."""

import io
import logging
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from lightning_m2pt.commands.prompts import words_table
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main
from lightning_m2pt.report.page.html import escape, table_html
from lightning_m2pt.report.tables.formats import Column, ReportTable
from lightning_m2pt.system.console import LAYOUT, OUT, VisibleConsole, log_file, say
from lightning_m2pt.visible_text import UNSAFE, visible

NASTY = "a\x1b[2J\x07\r\x9bb\u202ec\u2066d\x00e\u2028f\ud800g\U000e0041h"
SHOWN = r"a\x1b[2J\x07\r\x9bb\u202ec\u2066d\x00e\u2028f\ud800g\U000e0041h"


def test_unsafe_characters_become_escapes_and_letters_stay() -> None:
    assert visible(NASTY) == SHOWN
    assert visible("a\nb\tc", "\n") == "a\nb\\tc"
    for text in ("naïve Ω 漢字 🦊", "\u0645\u06cc\u200c\u062e", "👩\u200d🚀", "שלום", " "):
        assert visible(text) == text


def test_an_error_is_three_lines_of_letters() -> None:
    message = BadInputError(NASTY, where=f"x{NASTY}\ny", expected=NASTY, hint=NASTY).message()
    assert len(message.split("\n")) == 3
    assert not UNSAFE.search(message.replace("\n", ""))
    assert f"error: x{SHOWN} y: {SHOWN}" in message


def test_the_console_shows_letters_and_still_styles(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    console = VisibleConsole(file=stream, force_terminal=True, width=200, color_system="standard")
    table = Table(title=f"[bold]{NASTY}")
    table.add_column(NASTY)
    table.add_row(Text(NASTY))
    console.print(table)
    console.print(NASTY, style="red", markup=False)
    written = stream.getvalue()
    assert "\x1b[31m" in written
    for unsafe in ("\x1b[2J", "\x9b", "\u202e", "\x00", "\ud800", "\r"):
        assert unsafe not in written
    written.encode()
    assert isinstance(OUT, VisibleConsole)


def test_what_is_said_and_logged_is_letters(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What reaches the root logger goes into pytest's report, and a worker cannot send half a character.
    monkeypatch.setattr(logging.getLogger("experiments"), "propagate", False)
    with OUT.capture() as caught:
        say(f"{NASTY}\nsecond line")
    assert caught.get() == f"{SHOWN}\nsecond line\n"
    with log_file(tmp_path):
        logging.getLogger("experiments").info("%s", NASTY)
    assert SHOWN in capsys.readouterr().out
    logged = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert SHOWN in logged
    assert not UNSAFE.search(logged.replace("\n", ""))
    assert set(LAYOUT) == {"\n", "\t"}


def test_a_verb_and_a_file_name_cannot_drive_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    name = "no\x1b]0;title\x07such\udcff.jsonl"
    for words in (["score", str(tmp_path / name)], [f"ver{NASTY}b"], ["check", "--config", str(tmp_path / name)]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert not UNSAFE.search(error.replace("\n", ""))
        assert len(error.strip().split("\n")) <= 3


def test_words_of_a_vocabulary_are_no_markup() -> None:
    found = words_table({"nearest_words": {0: [[["[/INST]", 0.5], ["[bold]", 0.25]]]}})
    with OUT.capture() as caught:
        OUT.print(found)
    assert "[/INST] 0.50, [bold] 0.25" in caught.get()


def test_the_page_turns_no_text_around() -> None:
    assert escape(f"<b>{NASTY}") == f"&lt;b&gt;{SHOWN}"
    page = table_html(ReportTable(NASTY, [Column(NASTY)], [[NASTY]], [{"a": 1}], [NASTY]))
    assert not UNSAFE.search(page.replace("\n", ""))
