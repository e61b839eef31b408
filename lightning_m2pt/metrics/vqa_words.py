"""VQA's word processing as LVLM-eHub and Tiny-LVLM-eHub use it: class names, digits, and yes or no.

Source: https://github.com/OpenGVLab/Multi-Modality-Arena, ``VQAEval`` in ``LVLM_evaluation/utils/tools.py``, after
https://github.com/GT-Vision-Lab/VQA; written anew from what it does. In this order:

1. newlines and tabs become spaces;
2. a punctuation mark that stands beside a space anywhere goes everywhere, any other becomes a space ("cat/dog" is "cat
   dog"); if a comma stands between two digits anywhere, every mark goes; a full stop goes unless a digit follows;
3. lower case; number words up to ten are digits, "none" is 0; a, an, the go; contractions get their apostrophe.

What TextVQA uses (``lightning_m2pt.metrics.vqa``) is a descendant with other marks.
"""

import re

from lightning_m2pt.metrics.vqa import ARTICLES, CONTRACTIONS, DIGITS, FULL_STOP, MOST_FULL_STOPS

MARKS = tuple(';/[]"{}()=+\\_-><@`,?!')
COMMA_IN_NUMBER = re.compile(r"\d,\d")


def without_marks(text: str) -> str:
    """Returns a text whose punctuation marks, all but full stops, are gone or have become spaces."""
    all_go = COMMA_IN_NUMBER.search(text) is not None
    return text.translate(
        {ord(mark): "" if all_go or f"{mark} " in text or f" {mark}" in text else " " for mark in MARKS}
    )


def plain_words(text: str) -> str:
    """Returns a text in lower case, number words as digits, without articles, contractions written in full."""
    digits = (DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in digits if word not in ARTICLES)


def vqa_text(text: str) -> str:
    """Returns a text as ``VQAEval`` searches it for the right answer."""
    flat = text.replace("\n", " ").replace("\t", " ").strip()
    return plain_words(FULL_STOP.sub("", without_marks(flat), count=MOST_FULL_STOPS))
