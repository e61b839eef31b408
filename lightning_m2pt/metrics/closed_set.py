"""One of a known set of classes, named anywhere in an answer: this project's rule for CIFAR-10, CIFAR-100 and MNIST.

Source: ours, from the ideas of LVLM-eHub's ``has_word`` (whole words) and VQAEval (number words are digits). Unlike
them an answer is unparsed and counts as wrong if it names two classes, negates ("not a cat", "no black cat", "anything
but a cat"), leaves it open ("maybe a cat", "a cat or something else"), or is no assertion
(``lightning_m2pt.metrics.assertions``); and common other names of a class count as the class. A name that is part of
another thing's name is none ("hot dog", "bird cage", "cat-like", "two digits", ``class_phrases``). Underscores and
hyphens in class names are spaces, and a regular plural counts.

The longest name counts: what lies inside the match of another class names nothing ("a pickup truck" is no "truck" where
both are classes), while names that only overlap, or stand apart, are two classes.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache

from lightning_m2pt.metrics.assertions import assertion, is_hedged, is_negated
from lightning_m2pt.metrics.class_phrases import (
    JOINED,
    LONGEST_OFFER,
    NO_CLASS,
    OFFERED,
    OFFERED_BEFORE,
    OTHER_THING,
    is_one_number,
)

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

DENIAL_OR_END = re.compile(r"\b(no|without)\b|[.,;:!?()]")
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
    classes_of_form: dict[str, set[str]] = {}
    for name, readable in own.items():
        classes_of_form.setdefault(readable, set()).add(name)
    official_forms = set(classes_of_form)
    for name, readable in own.items():
        for other in (readable, *SYNONYMS.get(readable, ())):
            for form in {other, plural(other)} - official_forms:
                classes_of_form.setdefault(form, set()).add(name)
    for phrase in NO_CLASS:
        for form in (phrase, plural(phrase)):
            classes_of_form.setdefault(form, set())
    longest_first = sorted(classes_of_form, key=len, reverse=True)
    names = "|".join("[ -]".join(map(re.escape, form.split(" "))) for form in longest_first)
    pattern = re.compile(rf"(?<!\w)(?<!\d\.)(?=({names})(?!\w)(?!\.\d))")
    return pattern, {form: frozenset(of_form) for form, of_form in classes_of_form.items()}


def denied_stretches(text: str) -> tuple[list[int], list[bool]]:
    """Returns where a text's stretches begin, and whether each stands behind "no" or "without" in its clause."""
    places, denied = [0], [False]
    for match in DENIAL_OR_END.finditer(text):
        places.append(match.end())
        denied.append(match.group(1) is not None)
    return places, denied


def closed_set(answer: str, classes: Sequence[str]) -> str | None:
    """Returns the one class that an answer names, or None if it names none or several, or not certainly one."""
    asserted = assertion(answer, own_letters=letters_of(tuple(classes)))
    if asserted is None:
        return None
    flat = " ".join(asserted.replace("_", " ").split())
    pattern, classes_of_form = class_names(tuple(classes))
    places, denied = denied_stretches(flat)
    named: set[str] = set()
    furthest, others = 0, []
    for match in pattern.finditer(flat):
        start, end = match.span(1)
        if end <= furthest:
            continue
        others.append(flat[furthest:start])
        furthest, found = end, classes_of_form[match.group(1).replace("-", " ")]
        other_thing = OTHER_THING.match(flat, end)
        if other_thing:
            furthest = other_thing.end()
        if other_thing or not found:
            continue
        offered = OFFERED.match(flat, end) or OFFERED_BEFORE.search(flat[max(0, start - LONGEST_OFFER) : start])
        if denied[bisect_right(places, start) - 1] or JOINED.match(flat, end) or offered:
            return None
        named |= found
    rest = " ".join([*others, flat[furthest:]])  # a class's own name may hold "non" or "if"
    if len(named) != 1 or is_negated(rest) or is_hedged(rest):
        return None
    (name,) = named
    return None if name.isdecimal() and not is_one_number(flat, name) else name


@lru_cache(maxsize=16)
def letters_of(classes: tuple[str, ...]) -> str:
    """Returns the characters of all classes' names, in either case."""
    names = "".join(classes)
    return names + names.lower() + names.upper()
