"""One conversation, line by line: questions, and commands that begin with a slash."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from lightning_m2pt.application.chat import Chat
from lightning_m2pt.commands.parsers.chat import COMMANDS
from lightning_m2pt.commands.terminal.pictures import show_picture
from lightning_m2pt.commands.terminal.writing import write_streamed
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.inputs.images import open_image
from lightning_m2pt.system.console import people_read_errors, say

PROMPT = "> "


class Conversation:
    """The chats that are asked the same: the tuned model's, and the untouched one's where both are compared.

    Args:
        chats: By whose they are.
        max_new_tokens: Limit on an answer's tokens.
        shows_pictures: Whether another picture is shown.
    """

    def __init__(self, chats: Mapping[str, Chat], max_new_tokens: int, *, shows_pictures: bool) -> None:
        self._chats, self._max_new_tokens, self._shows_pictures = dict(chats), max_new_tokens, shows_pictures

    def take(self, line: str, where: str = "") -> bool:
        """Does what one line says.

        Args:
            line: A question, a command, or nothing.
            where: Where it stands, for messages.

        Returns:
            Whether the conversation goes on.

        Raises:
            BadInputError: If there is no such command or picture, or the question cannot be asked.
        """
        text = line.strip()
        if not text:
            return True
        if not text.startswith("/"):
            self._ask(text, where)
            return True
        command, _, rest = text.partition(" ")
        match command, rest.strip():
            case "/quit", "":
                return False
            case "/help", "":
                say(COMMANDS.rstrip())
            case "/reset", "":
                for chat in self._chats.values():
                    chat.reset()
                say_beside_answers("the conversation begins anew")
            case "/picture", name if name:
                self.show(named_picture(name), where)
            case "/picture", _:
                raise BadInputError("no file is named", where=f"{where or 'chat'}: /picture", expected="/picture FILE")
            case _:
                raise BadInputError(
                    f"{text!r:.60} is no command", where=where or "chat", expected="/picture FILE, /reset, /help, /quit"
                )
        return True

    def show(self, picture: Path, where: str = "") -> None:
        """Begins anew with another picture, and shows it.

        Raises:
            BadInputError: If it is none; the conversation is then as it was.
        """
        shown = open_image(picture, where or "chat")
        for chat in self._chats.values():
            chat.show(picture)
        if self._shows_pictures:
            show_picture(shown)
        say_beside_answers(f"a conversation about {picture}")

    def _ask(self, text: str, where: str) -> None:
        for name, chat in self._chats.items():
            try:
                pieces = chat.stream(text, max_new_tokens=self._max_new_tokens)
            except BadInputError as error:
                place = f"{where}: {error.where}" if where else error.where
                hint = error.hint.replace("reset()", "/reset")
                raise BadInputError(error.what, where=place, expected=error.expected, hint=hint) from error
            write_streamed(pieces, name if len(self._chats) > 1 else "")


def named_picture(name: str) -> Path:
    """Returns the file of a name; ``~`` is the home folder, and a letter like others where there is none."""
    path = Path(name)
    try:
        return path.expanduser()
    except RuntimeError:  # a user whom this machine does not know
        return path


def say_beside_answers(text: str) -> None:
    """Says something about the conversation where it does not stand among answers in a file."""
    with people_read_errors():
        say(text)


def talk_at_terminal(conversation: Conversation, picture: Path | None) -> None:
    """Asks for lines until the conversation ends: by /quit, by Ctrl-D, or by Ctrl-C twice.

    What cannot be asked is said, and the conversation goes on.

    Args:
        conversation: It was begun.
        picture: What it is about, which is shown; None: nothing.
    """
    with suppress(ImportError):
        import readline  # noqa: F401  (lets `input` edit lines and remember them)

    if picture is not None:
        conversation.show(picture)
    say("/help says what there is; Ctrl-D ends")
    interrupts = 0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        while interrupts < 2:
            try:
                goes_on = conversation.take(input(PROMPT))
            except EOFError:
                say("")
                return
            except KeyboardInterrupt:
                interrupts += 1
                say("" if interrupts > 1 else "\nstopped; Ctrl-C again ends")
                continue
            except UnicodeDecodeError:
                with people_read_errors():
                    say("error: the line is no text in this terminal's encoding")
                goes_on = True
            except (BadInputError, EnvironmentFailure) as error:
                with people_read_errors():
                    say(error.message())
                goes_on = True
            interrupts = 0
            if not goes_on:
                return
    finally:
        signal.signal(signal.SIGINT, before)


def lines_of_file(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """Yields the lines of standard input, each with where it stands.

    Raises:
        BadInputError: If one is not UTF-8.
    """
    for number, line in enumerate(file, start=1):
        where = f"standard input: line {number}"
        try:
            yield where, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadInputError("the line is not UTF-8", where=where, expected="text in UTF-8") from error
