"""Yes, no or not sure as words anywhere in an answer: this project's rule for SNLI-VE.

Source: ours; no open-ended rule for SNLI-VE is published. Whole words and phrases, in any case and with any
punctuation around them:

* yes: "yes", "entailment", "entailed";
* no: "no", "contradiction", "contradicted";
* not sure: "unsure", "uncertain", "unclear", "undetermined", "neutral", "maybe", "perhaps", "possibly"; "not", "isn't"
  and the like before "sure", "certain" or "clear" ("not entirely sure"); "cannot", "can't", "impossible to", "hard to",
  "no way to" and the like before "tell", "say", "know", "determine", "be sure", "be certain", "be known" or "be
  determined"; "do not know".

Unparsed, and so wrong, is an answer that names two of the three or none; one that negates otherwise than in these
phrases ("not a contradiction", "isn't entailed", "far from neutral") or denies twice in one clause ("no
contradiction"); a yes or no that is left open ("It might be yes") or contradicts "true" or "false"; and a "no" that
belongs to something else ("no doubt"). See ``lightning_m2pt.metrics.assertions``.
"""

import re

from lightning_m2pt.metrics.assertions import DENIALS, assertion, is_hedged, is_negated, is_plain_no, words

YES_WORDS = {"yes", "entailment", "entailed"}
CONTRADICTION = frozenset(("contradiction", "contradicted"))
NO_WORDS = {"no"} | CONTRADICTION
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


def entailment_words(answer: str) -> str | None:
    """Returns "yes", "no" or "not sure", or None for an answer that says none, several, or not certainly which."""
    text = assertion(answer)
    if text is None:
        return None
    sentence, phrases = NOT_SURE.subn(" ", " ".join(words(text)))
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
    if len(named) != 1 or is_negated(sentence) or "without" in found:
        return None
    if named == ["yes"] and (found & DENIALS or is_hedged(text)):
        return None
    if named == ["no"] and ("true" in found or is_hedged(text) or not is_plain_no(text, CONTRADICTION)):
        return None
    return named[0]
