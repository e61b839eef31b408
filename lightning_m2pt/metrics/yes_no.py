"""Yes or no as words anywhere in an answer: this project's rule for VSR.

Source: ours. Close to VLMEvalKit's ``YOrN_Extraction`` (yes without no is yes, no without yes is no), with "true" and
"false" beside them, since the question asks whether a statement is true. An answer that says both, or negates either
("not true", "isn't"), is unparsed and counts as wrong: a guess at its meaning would be worth less than the count.
"""

import re

WORD = re.compile(r"[a-z]+(?:['\u2019][a-z]+)?")
YES_WORDS = {"yes", "true"}
NO_WORDS = {"no", "false"}
NEGATIONS = {"not", "cannot", "never", "neither", "nor"}


def words(answer: str) -> set[str]:
    """Returns the lower-case words of an answer; "isn't" is one word."""
    return set(WORD.findall(answer.lower()))


def is_negated(found: set[str]) -> bool:
    """Returns whether words negate something, other than by being "no"."""
    return bool(found & NEGATIONS) or any(word.endswith(("n't", "n\u2019t")) for word in found)


def yes_no_words(answer: str) -> str | None:
    """Returns "yes" or "no", or None for an answer that says neither, both, or negates."""
    found = words(answer)
    says_yes, says_no = bool(found & YES_WORDS), bool(found & NO_WORDS)
    if says_yes == says_no or is_negated(found):
        return None
    return "yes" if says_yes else "no"
