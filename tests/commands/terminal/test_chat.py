"""``m2pt chat``: a file of questions, and lines at a terminal, with what a terminal can do to them."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_m2pt.application.model import Model
from lightning_m2pt.commands.terminal.conversation import Conversation, talk_at_terminal
from lightning_m2pt.main import main
from tests.bad_inputs.refusal import assert_refused

QUESTIONS = ("What is this?", "Is there a red square?", "Which number is it?")


def given(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))


def talked(adapter: Path, *words: object) -> list[str]:
    return ["chat", str(adapter), *map(str, words), "--base", "testbed", "--max-new-tokens", "5"]


def written(capfd: pytest.CaptureFixture[str], words: list[str]) -> list[str]:
    capfd.readouterr()
    assert main(words) == 0
    captured = capfd.readouterr()
    assert "\x1b" not in captured.out
    return captured.out.splitlines()


def said(model: Model, picture: Path | None, questions: tuple[str, ...] = QUESTIONS) -> list[str]:
    chat = model.chat(picture)
    return [chat.say(each, max_new_tokens=5) for each in questions]


def test_a_file_of_questions_is_one_conversation(
    capfd: pytest.CaptureFixture[str],
    adapter: Path,
    pictures: list[Path],
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for content in ("\n\n".join(QUESTIONS), "".join(f"  {each}\r\n" for each in QUESTIONS)):
        given(monkeypatch, content.encode())
        assert written(capfd, talked(adapter, pictures[0])) == said(model, pictures[0])
    given(monkeypatch, "\n".join(QUESTIONS).encode())
    assert written(capfd, talked(adapter)) == said(model, None)


def test_commands_in_a_file(
    capfd: pytest.CaptureFixture[str],
    adapter: Path,
    pictures: list[Path],
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = [*QUESTIONS[:2], "/reset", QUESTIONS[1], f"/picture {pictures[1]}", QUESTIONS[1], "/quit", QUESTIONS[0]]
    given(monkeypatch, "\n".join(lines).encode())
    first, second = (said(model, picture, QUESTIONS[1:2]) for picture in pictures[:2])
    assert written(capfd, talked(adapter, pictures[0])) == [*said(model, pictures[0], QUESTIONS[:2]), *first, *second]


def test_compared_each_has_a_history_of_its_own(
    capfd: pytest.CaptureFixture[str],
    adapter: Path,
    pictures: list[Path],
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given(monkeypatch, "\n".join(QUESTIONS).encode())
    pairs = zip(said(model, pictures[0]), said(model.frozen(), pictures[0]), strict=True)
    expected = [line for tuned, frozen in pairs for line in (f"tuned: {tuned}", f"frozen: {frozen}")]
    assert written(capfd, talked(adapter, pictures[0], "--compare")) == expected


@pytest.mark.parametrize("content", [b"", b"\n \n", b"/quit\n"])
def test_nothing_to_say_is_no_mistake(
    capfd: pytest.CaptureFixture[str], adapter: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    given(monkeypatch, content)
    assert written(capfd, talked(adapter)) == []


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"\n/what\n", ("line 2", "/what", "/reset")),
        (b"/picture\n", ("line 1", "/picture", "no file is named")),
        (b"/picture none.png\n", ("line 1", "none.png")),
        (b"/picture a\0b\n", ("line 1", "NUL")),
        (b"/picture ~nobody-of-this-name/x.png\n", ("line 1", "~nobody-of-this-name", "missing")),
        (b"/quit now\n", ("line 1", "/quit now")),
        (b"a <image> b\n", ("line 1", "<image>")),
        (b"red " * 3000, ("line 1", "rows", "/reset")),
        (b"caf\xe9\n", ("line 1", "UTF-8")),
    ],
    ids=str,
)
def test_a_line_that_cannot_be_asked_ends_a_file(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    adapter: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    named: tuple[str, ...],
) -> None:
    given(monkeypatch, content)
    assert_refused(capfd, talked(adapter), named, tmp_path)


def test_a_closed_standard_input_is_refused(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert_refused(capfd, talked(adapter), ("standard input is closed",), tmp_path)


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str | BaseException) -> Iterator[str | BaseException]:
    """Lets these lines be typed one after the other; an exception is what Python makes of a key."""
    rest = iter(lines)

    def read(_prompt: str) -> str:
        line = next(rest)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", read)
    return rest


def at_terminal(model: Model, picture: Path | None) -> Conversation:
    return Conversation({"tuned": model.chat(picture)}, 5, shows_pictures=False)


def test_mistakes_at_a_terminal_are_said_and_the_chat_goes_on(
    capfd: pytest.CaptureFixture[str], pictures: list[Path], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    not_utf_8 = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    lines = (QUESTIONS[0], "/what", "/picture none.png", "red " * 3000, not_utf_8, "/help", QUESTIONS[1], EOFError())
    rest = typed(monkeypatch, *lines)
    talk_at_terminal(at_terminal(model, pictures[0]), pictures[0])
    captured = capfd.readouterr()
    assert next(rest, None) is None
    for answer in said(model, pictures[0], QUESTIONS[:2]):
        assert answer in captured.out.splitlines()
    assert captured.err.count("error: ") == 4
    assert "/reset          forget" in captured.out


def test_interrupts_end_an_answer_and_twice_the_chat(
    capfd: pytest.CaptureFixture[str], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = typed(monkeypatch, KeyboardInterrupt(), QUESTIONS[0], KeyboardInterrupt(), KeyboardInterrupt(), QUESTIONS[1])
    talk_at_terminal(at_terminal(model, None), None)
    assert next(rest) == QUESTIONS[1]
    assert capfd.readouterr().out.count("Ctrl-C again ends") == 2


def test_an_interrupt_in_an_answer_keeps_what_was_said(
    capfd: pytest.CaptureFixture[str], model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = at_terminal(model, None)
    rows: list[int] = []

    def interrupt(*_: object) -> None:
        rows.append(1)
        if len(rows) == 3:
            raise KeyboardInterrupt

    handle = model._base.backbone.decoder().layers[0].register_forward_pre_hook(interrupt)
    typed(monkeypatch, QUESTIONS[0], QUESTIONS[1], EOFError())
    try:
        talk_at_terminal(conversation, None)
    finally:
        handle.remove()
    (chat,) = conversation._chats.values()
    assert [turn.question for turn in chat.history][-1] == QUESTIONS[1]
    assert "stopped" in capfd.readouterr().out
