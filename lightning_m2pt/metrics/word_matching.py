"""Which of a few answers a text is accepted as, by comparing cleaned texts: the published rules for class names.

| rule | a text is cleaned by | an answer is right if its cleaned text |
| --- | --- | --- |
| ``has_word`` | deleting all but ASCII letters, digits and white space; lower case | stands in it as whole words |
| ``exact_ehub`` | the same | equals it |
| ``vqa_words`` | VQA's word processing (``lightning_m2pt.metrics.vqa_words``) | stands in it as whole words |
| ``vqa_normalised`` | the same with VLMEvalKit's full stops (``lightning_m2pt.metrics.vlmevalkit``) | equals it |
| ``exact`` | deleting ASCII punctuation; lower case | equals it |

Sources: ``has_word``, ``exact_ehub``: https://github.com/OpenGVLab/Multi-Modality-Arena,
``LVLM_evaluation/utils/classification.py`` (its two numbers for CIFAR-10 and CIFAR-100). ``vqa_words``: ``VQAEval`` of
the same repository, which also scores VSR and POPE there. ``vqa_normalised``: VLMEvalKit's default for VQA.
``exact``: ``exact_match`` of https://github.com/EvolvingLMMs-Lab/lmms-eval with ``ignore_case`` and
``ignore_punctuation``.

A text that names several answers is accepted as each of them ("dog or cat", "not a cat": right for cat), which is why
these rules are for comparison and ``closed_set`` is the default. An answer of which cleaning leaves nothing is never
named; the published code would accept it everywhere.
"""

import re
import string
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import eq

from lightning_m2pt.metrics.rule import SEVERAL, Parse
from lightning_m2pt.metrics.vlmevalkit import vlmevalkit_text
from lightning_m2pt.metrics.vqa_words import vqa_text

SPECIAL_CHARACTER = re.compile(r"[^a-zA-Z0-9\s]")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def letters_and_digits(text: str) -> str:
    """Returns a text in lower case with ASCII letters, digits and white space alone."""
    return SPECIAL_CHARACTER.sub("", text).lower()


def without_ascii_punctuation(text: str) -> str:
    """Returns a text in lower case without ASCII punctuation marks."""
    return text.lower().translate(WITHOUT_PUNCTUATION)


def has_words(text: str, words: str) -> bool:
    """Tells whether words stand in a text between word boundaries."""
    return words in text and re.search(rf"\b{re.escape(words)}\b", text) is not None


def accepted_as(clean: Callable[[str], str], agrees: Callable[[str, str], bool]) -> Parse:
    """Returns a rule's reading: from a text and possible answers to those it is accepted as, or None.

    Args:
        clean: What is done to the text and to every answer first.
        agrees: Whether a cleaned text and a cleaned answer agree.
    """
    cleaned_answer = lru_cache(maxsize=1024)(clean)

    def parse(text: str, answers: Sequence[str]) -> str | None:
        cleaned = clean(text)
        named = [answer for answer in answers if (own := cleaned_answer(answer)) and agrees(cleaned, own)]
        return SEVERAL.join(named) or None

    return parse


has_word = accepted_as(letters_and_digits, has_words)
exact_ehub = accepted_as(letters_and_digits, eq)
vqa_words = accepted_as(vqa_text, has_words)
vqa_equal = accepted_as(vlmevalkit_text, eq)
exact = accepted_as(without_ascii_punctuation, eq)
