"""Yes, no or not sure as words anywhere in an answer: this project's rule for SNLI-VE.

Source: ours; no open-ended rule for SNLI-VE is published. Whole words and phrases, in any case and with any
punctuation around them:

* yes: "yes", "entailment", "entailed";
* no: "no", "contradiction", "contradicted";
* not sure: "unsure", "uncertain", "unclear", "undetermined", "neutral", "maybe", "perhaps", "possibly"; "not", "isn't"
  and the like before "sure", "certain" or "clear" ("not entirely sure"); "cannot", "can't", "impossible to", "hard to",
  "no way to" and the like before "tell", "say", "know", "determine", "be sure", "be certain", "be known" or "be
  determined"; "do not know".

An answer that names two of the three, or negates otherwise than in these phrases ("not a contradiction", "isn't
entailed", "no contradiction"), is unparsed and counts as wrong, as is one that names none: a guess at its meaning would
be worth less than the count.
"""

import re

from lightning_m2pt.metrics.yes_no import WORD, is_negated

YES_WORDS = {"yes", "entailment", "entailed"}
NO_WORDS = {"no", "contradiction", "contradicted"}
NEGATABLE = {"contradiction", "contradicted"}
UNABLE = r"(?:can ?not|can't|could not|couldn't|unable to|not able to|(?:not possible|impossible|hard|no way) to)"
NOT_SURE = re.compile(
    r"(?<!\S)(?:"
    r"unsure|uncertain|unclear|undetermined|neutral|maybe|perhaps|possibly"
    r"|(?:not|\w+n't)(?: (?:quite|really|entirely|completely|fully|very|too|so))? (?:sure|certain|clear)"
    rf"|{UNABLE} (?:really )?(?:tell|say|know|determine|be (?:sure|certain|known|determined))"
    r"|(?:do not|don't) know"
    r"|no (?:idea|information|evidence|indication)|no way of (?:knowing|telling)"
    r"|no ?one (?:can|could) (?:tell|say|know)|(?:not|\w+n't)(?: \w+)? enough (?:information|evidence)"
    r")(?!\S)"
)
CLAUSE_END = re.compile(r"[^\w\s']+|\n")


def entailment_words(answer: str) -> str | None:
    """Returns "yes", "no" or "not sure", or None for an answer that says none or several, or negates."""
    lower = answer.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    sentence, phrases = NOT_SURE.subn(" ", " ".join(WORD.findall(lower)))
    found = set(sentence.split())
    named = [
        name
        for name, is_named in (
            ("yes", bool(found & YES_WORDS)),
            ("no", bool(found & NO_WORDS)),
            ("not sure", phrases > 0),
        )
        if is_named
    ]
    if len(named) != 1 or is_negated(found) or "without" in found or denies_contradiction(lower):
        return None
    return named[0]


def denies_contradiction(lower: str) -> bool:
    """Tells whether "no" stands before "contradiction" with no punctuation between them."""
    for clause in CLAUSE_END.split(lower):
        words = WORD.findall(clause)
        if "no" in words and NEGATABLE & set(words[words.index("no") :]):
            return True
    return False
