"""Where a searched prompt stands in a conversation, as text."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.named_templates import NativeTemplate, Template
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.inputs.templates import ConversationTemplate

Position: TypeAlias = Literal["behind_question", "before_question", "system"]
"""Behind every question, in front of every question (behind its picture, where the template has it there), or behind
the system text."""
POSITIONS: tuple[Position, ...] = get_args(Position)

QUESTION_MARK = "{question}"
"""What stands for the question in a template's file."""


def question_text(position: Position, words: str) -> str:
    """Returns what a template's file says of every question."""
    if position == "behind_question":
        return f"{QUESTION_MARK} {words}"
    return f"{words} {QUESTION_MARK}" if position == "before_question" else QUESTION_MARK


def system_text(template: Template, words: str) -> str:
    """Returns the system text with the prompt behind it; of a file's template, whose text has signs in it, it alone."""
    own = template.system.strip() if isinstance(template, ConversationTemplate | NativeTemplate) else ""
    return f"{own} {words}".strip()


def with_words(sample: Sample, words: str, position: Position, template: Template) -> Sample:
    """Returns a conversation with a prompt in it.

    Args:
        sample: The conversation.
        words: The prompt.
        position: Where it stands; of several questions each has it.
        template: How the conversation becomes a text.
    """
    if position == "system":
        return replace(sample, system=system_text(template, words))
    form = question_text(position, words)
    turns = tuple(Turn(form.replace(QUESTION_MARK, turn.question), turn.answer) for turn in sample.turns)
    return replace(sample, turns=turns)


def refuse_own_systems(samples: Sequence[Sample], position: Position) -> None:
    """Refuses conversations with system texts of their own, where the prompt would take their place.

    Raises:
        BadInputError: If there is one.
    """
    own = next((sample for sample in samples if sample.system), None)
    if position == "system" and own is not None:
        raise BadInputError(
            f"sample {own.id} has a system text of its own",
            where=own.source,
            expected="--position behind_question or before_question: the prompt would take the text's place",
        )
