"""Runs ``m2pt chat``; its flags and what it is for are in ``parsers``."""

import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_m2pt.commands.parsers.chat import argument_parser
from lightning_m2pt.commands.terminal.conversation import Conversation, lines_of_file, talk_at_terminal
from lightning_m2pt.commands.terminal.model import answering_models
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.inputs.images import open_image


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Raises:
        BadInputError: If there is no such run, base or picture; where standard input is no terminal also if a line
            cannot be asked.
    """
    own = argument_parser().parse_args(list(arguments))
    if sys.stdin is None:  # Python's, where the shell has closed it
        raise BadInputError("standard input is closed", where="m2pt chat", expected="a terminal, or lines of questions")
    picture = None if own.picture is None else Path(own.picture)
    if picture is not None:
        open_image(picture, "command line: PICTURE")
    models = answering_models(own)
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    conversation = Conversation(
        {name: model.chat(picture) for name, model in models.items()},
        own.max_new_tokens,
        shows_pictures=is_terminal and not own.no_picture,
    )
    if is_terminal:
        talk_at_terminal(conversation, picture)
        return ExitCode.DONE
    for where, line in lines_of_file(sys.stdin.buffer):
        if not conversation.take(line, where):
            break
    return ExitCode.DONE
