"""One of a question's own options, by its letter or its text: this project's rule for multiple choice.

Source: ours, built on what LLaVA's evaluation of ScienceQA reads (``llava/eval/eval_science_qa.py``): the letter alone,
"A. ..." and "The answer is A.". Beside these, the letter in brackets or with another mark behind it ("(A)", "A)",
"A:"), "Answer: A" and "option A", the same in lower case where nothing follows, and the text of one option as it stands
in the question, in any case and with or without a full stop. "A cat" is no letter unless an option says so. Unparsed,
and so wrong, is an answer that names two letters with a mark ("A. B."), a letter that the question does not have, a
letter and another option's text, or a word that is one option's letter and another option's text.
"""

import re
from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST_CHOICES = len(LETTERS)
ALONE = re.compile(
    r"(?:(?:the |my )?(?:correct |right |best )?(?:answer|option|choice)(?: is)?:? ?(?:option |choice )?)?"
    r"(?:\(([a-z])\)|([a-z]))[.:,)]?",
    re.IGNORECASE | re.ASCII,  # without ASCII, long s and dotless i are letters, too
)
"""A whole answer that is a letter, with what may stand before and behind it."""
IN_FRONT = re.compile(r"(?:\(([A-Z])\)[.:,]?|([A-Z])[.:)]) ")
"""A letter with a mark in front of more text."""
MARKED = re.compile(r"(?:^| )(?:\(([A-Z])\)|([A-Z])[.:)](?= |$))")
LONGEST_ALONE = 60


def letters_of(choices: Sequence[str]) -> tuple[str, ...]:
    """Returns the letters of so many options, A first."""
    return tuple(LETTERS[: len(choices)])


def choice_letter(answer: str, choices: Sequence[str]) -> str | None:
    """Returns the letter of the option that an answer names, or None.

    Args:
        answer: What was answered.
        choices: The question's options, as they stand in the question.
    """
    text = " ".join(answer.split())
    named = [plain(choice) for choice in choices]
    found = {letter for letter, name in zip(letters_of(choices), named, strict=True) if name == plain(text)}
    by_letter = letter_in(text, choices)
    if by_letter in letters_of(choices):
        found.add(by_letter)
    return found.pop() if len(found) == 1 else None


def letter_in(text: str, choices: Sequence[str]) -> str:
    """Returns the letter that a text of single spaces says, whether the question has it or not; empty for none."""
    alone = ALONE.fullmatch(text) if len(text) <= LONGEST_ALONE else None
    if alone is not None:
        return str(alone.group(1) or alone.group(2)).upper()
    front = IN_FRONT.match(text)
    if front is None:
        return ""
    letter, rest = str(front.group(1) or front.group(2)), plain(text[front.end() :])
    others = [name for number, name in enumerate(map(plain, choices)) if LETTERS[number] != letter]
    marked = {match.group(1) or match.group(2) for match in MARKED.finditer(text)}
    return letter if marked <= {letter} and rest not in others else ""


def plain(text: str) -> str:
    """Returns a text for comparison: in lower case, with single spaces, without a full stop behind it."""
    return " ".join(text.split()).removesuffix(".").strip().casefold()
