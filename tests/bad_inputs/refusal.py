"""How every bad input must end: a code, three lines that name the place, and nothing changed on disk."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lightning_m2pt.main import main

Spoil = Callable[[Path], object]
Case = tuple[Sequence[str], Sequence[str]]
"""Words of a command, and what its message must name."""

BAD_INPUT, ENVIRONMENT = 2, 3


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Returns every file and link below a folder with its content; a folder of nothing is no output."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path)] = str(path.readlink())
        elif path.is_file():
            found[str(path)] = path.read_bytes()
    return found


def assert_refused(
    capfd: pytest.CaptureFixture[str],
    words: Sequence[object],
    named: Sequence[str],
    unchanged: Path,
    *,
    code: int = BAD_INPUT,
    may_report: bool = False,
) -> None:
    """Runs a command and looks at how it ends.

    Args:
        capfd: What the process writes, that of libraries included.
        words: The command.
        named: Texts that the message must contain, in any case of letters: file, line, key.
        unchanged: A folder whose content must be what it was; no output folder may appear in it.
        code: The exit code.
        may_report: Whether the command may list mistakes in data on standard output, at any length.
    """
    before = snapshot(unchanged)
    capfd.readouterr()
    ended = main([str(word) for word in words])
    captured = capfd.readouterr()
    is_report = may_report and not captured.err
    message = captured.out if is_report else captured.err
    assert ended == code, f"exit code {ended}: {message}"
    assert "Traceback" not in captured.err + captured.out
    assert not any(ord(character) < 32 and character not in "\n\t" for character in message), repr(message)
    error_lines = captured.err.strip().splitlines()
    assert len(error_lines) <= 3, captured.err
    if is_report:
        assert "bad " in message or "error: " in message, message
    else:
        assert error_lines, "nothing was said"
        assert error_lines[0].startswith("error: "), captured.err
        assert may_report or captured.out.strip() == "", captured.out
    for text in named:
        assert text.lower() in message.lower(), message
    after = snapshot(unchanged)
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    assert not changed, f"files have changed: {changed}"
