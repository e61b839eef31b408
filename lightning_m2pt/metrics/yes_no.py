"""Yes or no as words anywhere in an answer: this project's rule for VSR.

Source: ours. Close to VLMEvalKit's ``YOrN_Extraction`` (yes without no is yes, no without yes is no), with "true" and
"false" beside them, since the question asks whether a statement is true. Unparsed, and so wrong, is an answer that says
both, negates either ("not true", "isn't", "far from true"), denies twice in one clause ("It is false that there is no
dog"), leaves it open ("maybe yes"), or whose "no" belongs to something else ("no doubt", "no idea", "No. 5"); see
``lightning_m2pt.metrics.assertions``.
"""

from lightning_m2pt.metrics.assertions import DENIALS, assertion, is_hedged, is_negated, is_plain_no, words

YES_WORDS = {"yes", "true"}
NO_WORDS = {"no", "false"}


def yes_no_words(answer: str) -> str | None:
    """Returns "yes" or "no", or None for an answer that says neither, both, or not certainly which."""
    text = assertion(answer)
    if text is None:
        return None
    found = set(words(text))
    says_yes, says_no = bool(found & YES_WORDS), bool(found & NO_WORDS)
    if says_yes == says_no or is_negated(text) or is_hedged(text) or "without" in found:
        return None
    if says_yes:
        return None if found & DENIALS else "yes"
    return "no" if is_plain_no(text) else None
