"""Whether an answer says plainly what its words name: negations, hedges, questions and letters of other alphabets.

Source: ours, for this project's own rules (``yes_no_words``, ``entailment_words``, ``closed_set``). What is negated,
left open, asked or written in letters that English has not is unparsed and counts as wrong: a guess at its meaning
would be worth less than the count. Published rules read answers as their own tools do, and use nothing of this.
"""

import re
import unicodedata

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
APOSTROPHE = re.compile("[`\u00b4\u2018\u2019\u02bc\u2032\uff07]")
QUOTATION_MARK = re.compile('["\u201c\u201d\u201e\u00ab\u00bb]')
CLAUSE_END = re.compile(r"[^\w\s']+|\n")
SENTENCE = re.compile(r"[^.!?\n]+[.!?\n]*|[.!?\n]+")
EMOJI_FORM = "\N{VARIATION SELECTOR-16}"

QUESTION_WORDS = """
    is are was were does do did can could has have had will would should what which who whose where when why how
    question
"""
ASKING = frozenset(QUESTION_WORDS.split())
"""Words that a question begins with, if it is the one that was asked and not the answer."""
LEAST_WORDS_ASKED = 3

NEGATING_WORDS = """
    not cannot never neither nor none nothing nobody nowhere non hardly barely scarcely rarely seldom unlikely
    aint arent cant couldnt didnt doesnt dont hadnt hasnt havent isnt mustnt shouldnt wasnt werent wont wouldnt
"""
NEGATIONS = frozenset(NEGATING_WORDS.split())
NEGATING_PHRASE = re.compile(
    r"\b(?:(?:any(?:thing|one)?|all|nothing) but|far from|(?:instead|devoid|free) of|(?:rather|other) than|unlike|"
    r"except|fail(?:s|ed|ing)?|lack(?:s|ed|ing)?|absen(?:t|ce)|refus(?:e|es|ed))\b"
)
HEDGE = re.compile(
    r"\b(?:maybe|perhaps|possibly|unsure|uncertain|unclear|unknown|undetermined|undecided|ambiguous|depend(?:s|ing)?|"
    r"whether|if|unless|might|(?:could|may) be|"
    r"can be(?! (?:[a-z]+ly )?(?:seen|found|observed|spotted|noticed|identified|recogni[sz]ed|inferred|used)\b))\b"
)

DENIALS = frozenset(("no", "nope", "nah", "false", "untrue", "incorrect", "wrong"))
"""Words that deny a statement; two of them in one clause may affirm it."""
DENIED_CLAUSE = re.compile(r"\b(?:false|untrue|incorrect|wrong)\W+(?:that|to)\b")
NO_THAT_IS_NO_ANSWER = re.compile(
    r"\bno\.?\s*\d|\bno (?:[a-z]+ )?(?:doubts?|questions?|problems?|reasons?|ideas?|clues?|ways?|information|evidence|"
    r"indications?|proof|matter|wonder|ones?|lies?|mistak(?:es?|ing)|den(?:ial|ying)|more|less|fewer|other|longer|"
    r"better|sooner|worr(?:y|ies)|need|sense|telling|knowing|opinion|comment|answer|context|images?|pictures?|photos?)\b"
)
""""No. 5" is a number, "no doubt" affirms, "no idea" and "no image" are no answers."""


def assertion(answer: str, own_letters: str = "") -> str | None:
    """Returns what an answer asserts, in lower case and with plain apostrophes, or None if that cannot be told.

    A question that is repeated before it is answered goes. What ends in a question ("Yes?") is no assertion. Neither is
    what holds letters, digits or marks of another script than the Latin one, which may say anything, or be there to
    look like a letter (the Kelvin sign), or invisible ones that touch a word.

    Args:
        answer: What was answered.
        own_letters: Characters that are known although they are not Latin: those of the classes' names.
    """
    if not answer.isascii() and holds_foreign(answer, own_letters):
        return None
    text = APOSTROPHE.sub("'", answer.lower()).replace("\uff1f", "?")
    if "?" not in text:
        return text
    sentences = SENTENCE.findall(text)
    if "?" in sentences[-1]:
        return None
    return "".join(sentence for sentence in sentences if not is_repeated_question(sentence))


def is_repeated_question(sentence: str) -> bool:
    """Tells whether a sentence looks like the question that was asked."""
    asked = WORD.findall(sentence) if "?" in sentence else []
    return len(asked) >= LEAST_WORDS_ASKED and asked[0] in ASKING


def holds_foreign(answer: str, own_letters: str) -> bool:
    """Tells whether an answer holds letters, digits or marks that are not Latin, or invisible ones within words."""
    used = set(answer) - set(own_letters)
    if any(is_foreign(character) for character in used):
        return True
    invisible = "".join(character for character in used if unicodedata.category(character) == "Cf")
    return bool(invisible) and re.search(rf"\w[{invisible}]|[{invisible}]\w", answer) is not None


def is_foreign(character: str) -> bool:
    """Tells whether a character is a letter, digit or mark that is not Latin."""
    if character.isascii() or character == EMOJI_FORM or APOSTROPHE.match(character):
        return False
    is_text = unicodedata.category(character)[0] in "LMN"
    return is_text and not unicodedata.name(character, "").startswith("LATIN ")


def words(text: str) -> list[str]:
    """Returns the words of what ``assertion`` returned; "isn't" is one word."""
    return WORD.findall(text)


def is_negated(text: str) -> bool:
    """Returns whether a text negates something, other than by "no" or "without"."""
    found = set(words(text))
    return (
        bool(found & NEGATIONS)
        or any(word.endswith("n't") for word in found)
        or NEGATING_PHRASE.search(text) is not None
    )


def is_hedged(text: str) -> bool:
    """Returns whether a text leaves open what it says; "probably" and "I think" do not."""
    return HEDGE.search(text) is not None


def is_plain_no(text: str, more_denials: frozenset[str] = frozenset()) -> bool:
    """Tells whether a text with a denial in it is certainly one: neither a phrase nor a double negation.

    Args:
        text: What was asserted.
        more_denials: Words that deny beside ``DENIALS``.
    """
    if NO_THAT_IS_NO_ANSWER.search(text):
        return False
    denials, text = DENIALS | more_denials, QUOTATION_MARK.sub(" ", text)
    clause = DENIED_CLAUSE.search(text)
    if clause is not None and not denials.isdisjoint(words(text[clause.end() :])):
        return False
    return all(number_of(denials, words(clause)) < 2 for clause in CLAUSE_END.split(text))


def number_of(denials: frozenset[str], clause: list[str]) -> int:
    """Returns how many denials a clause holds; one that is said again at once counts once."""
    return sum(word in denials and word != before for before, word in zip(["", *clause], clause, strict=False))
