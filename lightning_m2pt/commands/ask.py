"""Runs ``m2pt ask``; its flags and what it is for are in ``parsers``."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table
from rich.text import Text

from lightning_m2pt.application.asked import refuse_unless_question
from lightning_m2pt.application.model import Model
from lightning_m2pt.commands.parsers.ask import argument_parser
from lightning_m2pt.commands.terminal.model import TUNED, answering_models
from lightning_m2pt.commands.terminal.pictures import show_picture
from lightning_m2pt.commands.terminal.writing import write_line, write_streamed
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.inputs.images import open_image
from lightning_m2pt.system.console import OUT
from lightning_m2pt.visible_text import visible


@dataclass(frozen=True)
class Found:
    """What one model answers to one question.

    Attributes:
        answer: The text.
        candidates: The log-probability of each candidate; empty for a greedy answer.
    """

    answer: str
    candidates: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Returns it as JSON values."""
        return {"answer": self.answer, **({"candidates": dict(self.candidates)} if self.candidates else {})}


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Raises:
        BadInputError: If there is no such run, base or picture, or a question cannot be asked.
    """
    own = argument_parser().parse_args(list(arguments))
    for question in own.questions:
        refuse_unless_question(question, "command line: QUESTION")
    candidates = candidates_of(own.candidates)
    picture = Path(own.picture)
    shown = open_image(picture, "command line: PICTURE")
    models = answering_models(own)
    if not (own.no_picture or own.json):
        show_picture(shown)
    for question in own.questions:
        if own.json:
            found = {name: found_by(model, picture, question, candidates, own) for name, model in models.items()}
            others = {name: each.as_json() for name, each in found.items() if name != TUNED}
            sys.stdout.write(json.dumps({"question": question, **found[TUNED].as_json(), **others}) + "\n")
            sys.stdout.flush()
            continue
        if len(own.questions) > 1 and sys.stdout.isatty():
            OUT.print(Text(visible(question), style="bold"))
        if candidates or len(models) > 1:
            write_beside({name: found_by(model, picture, question, candidates, own) for name, model in models.items()})
        else:
            write_streamed(models[TUNED].stream(picture, question, max_new_tokens=own.max_new_tokens))
    return ExitCode.DONE


def candidates_of(text: str | None) -> tuple[str, ...]:
    """Returns the candidate answers of a command line; none where none are given.

    Raises:
        BadInputError: If there are fewer than two different ones.
    """
    if text is None:
        return ()
    found = tuple(each.strip() for each in text.split(","))
    if len(found) < 2 or len(set(found)) != len(found) or not all(found):
        raise BadInputError(
            f"the candidate answers are {text!r:.80}",
            where="command line: --candidates",
            expected="two different answers or more, as yes,no",
        )
    return found


def found_by(model: Model, picture: Path, question: str, candidates: Sequence[str], own: argparse.Namespace) -> Found:
    """Returns a model's answer: of candidates the likeliest, of equally likely ones the first."""
    if not candidates:
        return Found(model.ask(picture, question, max_new_tokens=own.max_new_tokens))
    scores = model.score(picture, question, candidates)
    return Found(max(scores, key=lambda each: scores[each]), scores)


def write_beside(found: Mapping[str, Found]) -> None:
    """Writes the answers of several models, each behind its name, and of candidates how likely each is."""
    if not sys.stdout.isatty():
        for name, each in found.items():
            write_line(each.answer, name if len(found) > 1 else "")
            for candidate, score in each.candidates.items():
                write_line(f"  {score:10.4f}  {candidate}")
        return
    table = Table.grid(padding=(0, 2))
    for name, each in found.items():
        first = Text(name, style="dim") if len(found) > 1 else Text("")
        table.add_row(first, Text(visible(each.answer, "\n\t") or "(no answer)", style="" if each.answer else "dim"))
        for candidate, score in each.candidates.items():
            table.add_row("", Text(f"{score:10.4f}  {visible(candidate)}", style="dim"))
    OUT.print(table)
