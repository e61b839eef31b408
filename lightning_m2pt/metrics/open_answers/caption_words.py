"""Captions as words, as CIDEr and BLEU compare them.

Published scores are over the words of Stanford's PTBTokenizer, a Java program that ``pycocoevalcap`` brings and starts;
punctuation marks are dropped behind it. No Java is started here: what it makes of captions is done by the few rules
below. Words are in lower case; "n't", "'s", "'re" and the like are words of their own, and so are the halves of
"cannot" and its kind; hyphens, full stops and commas inside a word or a number stay, and so do the full stops of
"p.m." and of a few titles ("Mr."); a mark that is none of those that are dropped ("&", "#") is a word, and a bracket is
one under the name that the tokenizer gives it ("-lrb-").

Different are rarer abbreviations, whose full stop the tokenizer keeps ("no. 5"), "rock'n'roll", fractions and
emoticons.
"""

import re

DROPPED = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
TITLES = "mr|mrs|ms|dr|st|jr|sr|prof|vs|etc"
QUOTATION_MARKS = str.maketrans(dict.fromkeys('"\u201c\u201d\u201e\u00ab\u00bb', " "))
APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u00b4\u02bc`", "'"))
DASHES = str.maketrans(dict.fromkeys("\u2013\u2014\u2015", " "))
PIECE = re.compile(rf"\b(?:[a-z]\.){{2,}}|\b(?:{TITLES})\.|" + r"\d+(?:[.,:]\d+)+(?![\w])|\w+(?:[-.'&/]\w+)*|\S")
"""An abbreviation, a number with marks inside, a word with marks inside, or one mark."""
CLITIC = re.compile(r"(?:n't|'(?:s|m|d|re|ve|ll))$")
HALVES = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "wanna": ("wan", "na"),
    "gimme": ("gim", "me"),
    "lemme": ("lem", "me"),
}


def caption_words(text: str) -> str:
    """Returns a caption's words with single spaces between them; it may be empty."""
    flat = text.lower().translate(APOSTROPHES).translate(QUOTATION_MARKS).translate(DASHES)
    words: list[str] = []
    for piece in PIECE.findall(flat):
        words += parts_of(piece)
    return " ".join(word for word in words if word not in DROPPED)


def parts_of(piece: str) -> list[str]:
    """Returns a piece's words: one, or a word and what hangs on it."""
    if piece in BRACKETS:
        return [BRACKETS[piece]]
    if piece in HALVES:
        return list(HALVES[piece])
    clitic = CLITIC.search(piece)
    if clitic is None or clitic.start() == 0:
        return [piece]
    return [*parts_of(piece[: clitic.start()]), clitic.group()]
