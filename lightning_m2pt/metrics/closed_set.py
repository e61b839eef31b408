"""One of a known set of classes, named anywhere in an answer: this project's rule for CIFAR-10 and MNIST.

Source: ours, from the ideas of LVLM-eHub's ``has_word`` (whole words) and VQAEval (number words are digits). Unlike
them an answer that names two classes, or negates ("not a cat"), is unparsed and counts as wrong, and common other
names of a class count as the class. Underscores in class names are spaces, and a regular plural counts.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from lightning_m2pt.metrics.yes_no import is_negated, words

SYNONYMS: dict[str, tuple[str, ...]] = {
    "0": ("zero",),
    "1": ("one",),
    "2": ("two",),
    "3": ("three",),
    "4": ("four",),
    "5": ("five",),
    "6": ("six",),
    "7": ("seven",),
    "8": ("eight",),
    "9": ("nine",),
    "airplane": ("aeroplane", "plane"),
    "automobile": ("car",),
}
"""Other names of classes, for any set that has a class of that name."""


@lru_cache(maxsize=16)
def class_patterns(classes: tuple[str, ...]) -> dict[str, re.Pattern[str]]:
    """Returns for every class a pattern that finds it or a synonym as a whole word."""
    patterns = {}
    for name in classes:
        readable = name.replace("_", " ").lower()
        names = sorted({readable, *SYNONYMS.get(readable, ())}, key=len, reverse=True)
        plurals = [re.escape(one) + ("s?" if one.isalpha() else "") for one in names]
        patterns[name] = re.compile(rf"(?<!\w)(?<!\d\.)(?:{'|'.join(plurals)})(?!\w)(?!\.\d)")
    return patterns


def closed_set(answer: str, classes: Sequence[str]) -> str | None:
    """Returns the one class that an answer names, or None if it names none or several, or negates."""
    flat = " ".join(answer.lower().replace("_", " ").split())
    named = [name for name, pattern in class_patterns(tuple(classes)).items() if pattern.search(flat)]
    if len(named) != 1 or is_negated(words(flat)):
        return None
    return named[0]
