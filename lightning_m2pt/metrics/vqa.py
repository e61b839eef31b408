"""The official soft accuracy of questions that ten people answered: this project's rule for TextVQA.

Source: https://github.com/facebookresearch/mmf (``EvalAIAnswerProcessor``, ``TextVQAAccuracyEvaluator``), after the VQA
evaluation of Antol et al. (ICCV 2015); written anew from what it does. Answers and references are compared as equal
texts after this processing, in this order:

1. lower case; commas and question marks go; ``'s`` becomes a word of its own; newlines and tabs become spaces;
2. a punctuation mark that stands beside a space anywhere goes everywhere, any other becomes a space ("and/or" is
   "and or", "this/ that/those" is "this thatthose");
3. a full stop goes unless a digit follows it ("7." is "7", "7.5" stays);
4. number words up to ten are digits, "none" is 0; the articles a, an, the go; a contraction without one of its
   apostrophes gets it back ("dont" is "don't").

An answer that was given by three of the other nine people is right, by fewer a third each; the accuracy of an answer
is the mean over all ten choices of the one that is left out.
"""

import re
from collections import Counter
from collections.abc import Sequence

PUNCTUATION = tuple(';/[]"{}()=+\\_-><@`!')
FULL_STOP = re.compile(r"\.(?!\d)")
MOST_FULL_STOPS = 32
"""How many full stops go; the published code passes ``re.UNICODE``, which is 32, where the count belongs."""
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(NUMBER_WORDS)}
ARTICLES = {"a", "an", "the"}
CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
CONTRACTIONS = {
    form[:place] + form[place + 1 :]: form
    for form in CONTRACTED.split()
    for place, character in enumerate(form)
    if character == "'"
} | {"somebody'd": "somebodyd"}
"""Contractions that lack one apostrophe, and what they stand for; the published list has the last one reversed."""
ENOUGH_PEOPLE = 3


def vqa_normalised(text: str) -> str:
    """Returns an answer as the official tool compares it; it may be empty."""
    flat = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    flat = flat.strip().replace("\n", " ").replace("\t", " ").strip()
    beside_space = {mark for mark in PUNCTUATION if f"{mark} " in flat or f" {mark}" in flat}
    spaced = flat.translate({ord(mark): "" if mark in beside_space else " " for mark in PUNCTUATION})
    words = FULL_STOP.sub("", spaced, count=MOST_FULL_STOPS).split()
    kept = [word for word in (DIGITS.get(word, word) for word in words) if word not in ARTICLES]
    return " ".join(CONTRACTIONS.get(word, word) for word in kept)


def parse_vqa(answer: str) -> str | None:
    """Returns the normalised answer as text that a file can hold, or None if nothing is left of it."""
    return vqa_normalised(answer).encode(errors="replace").decode() or None


def reference_scores(references: Sequence[str]) -> dict[str, float]:
    """Returns the soft accuracy of every distinct normalised reference; any other answer gets 0."""
    people: Counter[str] = Counter()
    for reference, number in Counter(references).items():
        people[vqa_normalised(reference)] += number
    return {answer: left_one_out(number, len(references)) for answer, number in people.items()}


def left_one_out(matches: int, people: int) -> float:
    """Returns the mean of min(1, matches / 3) over all choices of one person who is left out."""
    with_a_match_out = matches * min(1.0, (matches - 1) / ENOUGH_PEOPLE)
    with_another_out = (people - matches) * min(1.0, matches / ENOUGH_PEOPLE)
    return (with_a_match_out + with_another_out) / people


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """Returns the official soft accuracy of an answer, from 0 to 1.

    Args:
        answer: What was answered.
        references: What people answered, ten in the official sets; none gives 0, and one alone can match nobody else.
    """
    return reference_scores(references).get(vqa_normalised(answer), 0.0)
