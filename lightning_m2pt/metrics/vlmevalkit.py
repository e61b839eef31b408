"""How VLMEvalKit reads answers: yes and no as words, and the text it compares in VQA.

Source: https://github.com/open-compass/VLMEvalKit, ``YOrN_Extraction`` (MME, POPE, VSR), ``process_punctuation`` and
``process_answer``, without the judge model it can send unread answers to; written anew from what they do.
"""

import re

from lightning_m2pt.metrics.vqa import MOST_FULL_STOPS
from lightning_m2pt.metrics.vqa_words import plain_words, without_marks

FULL_STOP = re.compile(r"(?<!\d)\.(?!\d)")
"""Unlike VQA's own: a full stop after a digit stays as well ("7." is no "7")."""


def without_punctuation(text: str) -> str:
    """Returns a text as VLMEvalKit takes its punctuation out; colons, asterisks and apostrophes stay."""
    return FULL_STOP.sub("", without_marks(text), count=MOST_FULL_STOPS)


def yes_no_vlmevalkit(answer: str) -> str | None:
    """Returns "yes" if an answer has that word and not "no", "no" the other way round, or None ("Unknown")."""
    words = set(without_punctuation(answer.lower()).split())
    if ("yes" in words) == ("no" in words):
        return None
    return "yes" if "yes" in words else "no"


def vlmevalkit_text(text: str) -> str:
    """Returns a text as VLMEvalKit compares answers in VQA: equal texts are right."""
    flat = text.replace("\n", " ").replace("\t", " ").strip()
    return plain_words(without_punctuation(flat))
