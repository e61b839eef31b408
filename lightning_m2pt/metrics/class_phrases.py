"""Phrases in which a word that is a class's name elsewhere names something else ("hot dog"), and counts ("two digits").

Source: ours, collected by hand for the names of CIFAR-10, CIFAR-100 and MNIST, and not complete. A
phrase that is a class itself names that class.
"""

import re

NO_CLASS = (
    "ant lion",
    "bear claw",
    "bee eater",
    "butterfly stroke",
    "clothes horse",
    "computer mouse",
    "corn dog",
    "flying fox",
    "fox glove",
    "horse fly",
    "horse radish",
    "hot dog",
    "koala bear",
    "leap frog",
    "lion fish",
    "pommel horse",
    "prairie dog",
    "rocking horse",
    "rose gold",
    "saw horse",
    "sea cow",
    "sea dog",
    "sea horse",
    "sea lion",
    "tank top",
    "teddy bear",
    "tiger lily",
    "water bear",
)
"""What these name is of no class, whatever their words are."""

OTHER_THING = re.compile(
    " (?:antler|bath|cage|cake|collar|driver|feeder|food|house|juice|key|leash|litter|nest|opener|pad|park|pie|post|"
    r"saddle|seat|shoe|stable|station|stop|tennis|ticket|toy|track|tree|wash|wine|wreck)s?\b"
)
"""Behind a class's name: what is named then is the second word's thing."""
JOINED = re.compile(r"[-\u2010\u2011]\w")
"""Behind a class's name: part of a compound ("cat-like", "7-segment")."""
OFFERED = re.compile(r" or\b")
"""Behind a class's name: one of several possibilities."""
OFFERED_BEFORE = re.compile(r"\bor (?:an? |the )?$")
LONGEST_OFFER = 8
"""More characters than ``OFFERED_BEFORE`` can match."""

NUMBER = re.compile(r"\d+(?:[.,/:^x\u00d7-]\d+)*%?")
NUMBER_WORD = re.compile(
    r"\b(?:ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|"
    r"hundreds?|thousands?|millions?|dozens?)\b"
)
ONE_TO_NINE = "one|two|three|four|five|six|seven|eight|nine"
COUNT = re.compile(
    rf"\b(?:{ONE_TO_NINE}|\d) (?:\w+ )?(?:digit|number|numeral|figure|character|stroke|line|symbol|object|thing)s?\b"
)
ONE_AS_PRONOUN = re.compile(
    r"\b(?:this|that|the|which|each|every|any|some|no|only|another|other|last|first|next) one\b"
    r"|\bone (?:of|can|could|may|might|must|should|would|sees?|who|that|which)\b"
)


def is_one_number(text: str, number: str) -> bool:
    """Tells whether a text that names a number names it alone and as a number; shares in percent do not count.

    Args:
        text: An answer in lower case.
        number: The class that it names, in digits.
    """
    others = {found for found in NUMBER.findall(text) if not found.endswith("%")} - {number}
    return not (others or NUMBER_WORD.search(text) or COUNT.search(text) or ONE_AS_PRONOUN.search(text))
