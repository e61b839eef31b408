"""Help is as wide as the terminal, says the same at every width, and breaks no command line."""

import pytest

from lightning_m2pt.commands.verbs import VERBS, parser_of
from lightning_m2pt.main import help_text, main
from lightning_m2pt.system.help_width import COMMANDS, fitted

WRITTEN = """\
usage: m2pt x [-h]

A paragraph that is filled anew, since its first line is
too long. A second sentence.

Short lines
stay.

  name      what it is, at more length than there is room for
  a-name-that-takes-all-of-the-line  what it is
  indented words that are no columns, in one line
  m2pt x --flag "a command line that is longer than all"
  m2pt x --flag value  what it does
"""
AT_40 = """\
usage: m2pt x [-h]

A paragraph that is filled anew, since
its first line is too long. A second
sentence.

Short lines
stay.

  name      what it is, at more length
            than there is room for
  a-name-that-takes-all-of-the-line
      what it is
  indented words that are no columns, in
  one line
  m2pt x --flag "a command line that is longer than all"
  m2pt x --flag value  what it does
"""


def test_a_text_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_m2pt.system.help_width.NARROWEST", 20)
    monkeypatch.setenv("COLUMNS", "40")
    assert fitted(WRITTEN) == AT_40
    assert fitted(AT_40) == AT_40
    monkeypatch.setenv("COLUMNS", "70")
    assert fitted(WRITTEN) == WRITTEN


@pytest.mark.parametrize("verb", VERBS)
def test_no_verbs_help_is_wider_than_eighty_columns(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = parser_of(verb).format_help()
    assert [line for line in shown.splitlines() if len(line) > 80 and not line.strip().startswith(COMMANDS)] == []
    monkeypatch.setenv("COLUMNS", "400")
    assert parser_of(verb).format_help().split() == shown.split()


def test_the_list_of_verbs_is_no_wider_either(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.split() == help_text().split()
