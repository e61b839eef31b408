"""One of a known set of classes, named anywhere in an answer: this project's rule for CIFAR-10, CIFAR-100 and MNIST.

Source: ours, from the ideas of LVLM-eHub's ``has_word`` (whole words) and VQAEval (number words are digits). Unlike
them an answer that names two classes, or negates ("not a cat", "no cat", "without a cat"), is unparsed and counts as
wrong, and common other names of a class count as the class. Underscores and hyphens in class names are spaces, and a
regular plural counts.

The longest name counts: what lies inside the match of another class names nothing ("a pickup truck" is no "truck" where
both are classes), while names that only overlap, or stand apart, are two classes.
"""

import re
from collections.abc import Mapping, Sequence
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
    "bicycle": ("bike",),
    "lawn mower": ("lawnmower",),
    "maple tree": ("maple",),
    "motorcycle": ("motorbike",),
    "oak tree": ("oak",),
    "palm tree": ("palm",),
    "pine tree": ("pine",),
    "streetcar": ("tram",),
    "sweet pepper": ("bell pepper",),
    "telephone": ("phone",),
    "television": ("tv",),
    "willow tree": ("willow",),
}
"""Other names of classes, for any set that has a class of that name and none of the other name."""

DENIED = re.compile(r"(?:^|\W)(?:no|without)(?: an?| the)? $")
LONGEST_DENIAL = 16
"""More characters than ``DENIED`` can match: looking back takes no longer in a longer answer."""
ES_ENDINGS = ("s", "x", "z", "ch", "sh")


def plural(name: str) -> str:
    """Returns the regular plural of a name; a name that ends in no letter stays as it is."""
    if not name[-1].isalpha():
        return name
    if name.endswith(ES_ENDINGS):
        return name + "es"
    if name.endswith("y") and name[-2:-1] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"


@lru_cache(maxsize=16)
def class_names(classes: tuple[str, ...]) -> tuple[re.Pattern[str], Mapping[str, frozenset[str]]]:
    """Returns a pattern that finds the longest name at every place of a text, and the classes of every name.

    The name is the pattern's first group; with hyphens as spaces it is a key of the second value.
    """
    own = {name: " ".join(name.lower().replace("_", " ").replace("-", " ").split()) for name in classes}
    owners: dict[str, set[str]] = {}
    for name, readable in own.items():
        owners.setdefault(readable, set()).add(name)
    taken = set(owners)
    for name, readable in own.items():
        for other in (readable, *SYNONYMS.get(readable, ())):
            for form in {other, plural(other)} - taken:
                owners.setdefault(form, set()).add(name)
    longest_first = sorted(owners, key=len, reverse=True)
    names = "|".join("[ -]".join(map(re.escape, form.split(" "))) for form in longest_first)
    pattern = re.compile(rf"(?<!\w)(?<!\d\.)(?=({names})(?!\w)(?!\.\d))")
    return pattern, {form: frozenset(of_form) for form, of_form in owners.items()}


def closed_set(answer: str, classes: Sequence[str]) -> str | None:
    """Returns the one class that an answer names, or None if it names none or several, or negates."""
    flat = " ".join(answer.lower().replace("_", " ").split())
    pattern, owners = class_names(tuple(classes))
    named: set[str] = set()
    furthest = 0
    for match in pattern.finditer(flat):
        if match.end(1) > furthest:
            furthest, start = match.end(1), match.start(1)
            if DENIED.search(flat[max(0, start - LONGEST_DENIAL) : start]):
                return None
            named |= owners[match.group(1).replace("-", " ")]
    if len(named) != 1 or is_negated(words(flat)):
        return None
    return named.pop()
