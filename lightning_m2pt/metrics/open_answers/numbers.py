"""Numbers that may be a little off: ChartQA's relaxed accuracy, and this project's rule for numbers in sentences.

``relaxed_accuracy``: ``relaxed_correctness`` of https://github.com/google-research/pix2struct
(``pix2struct/metrics.py``), which lmms-eval and Qwen's evaluation use as well, after the end of section 5.1 of Masry et
al. (Findings of ACL 2022). Answer and target are read as Python reads a number, ``12%`` as 0.12. If both are numbers
and the target is not 0, the answer may differ by a share of the target (5% as published, the question's tolerance
here); otherwise both have to be equal texts in any case. "$5" and "1,000" are no numbers to it, and neither is "It is
5". White space around an answer goes; the published function is given trimmed texts.

``number_within``: ours. An answer has to hold exactly one number, anywhere: "There are 5 dogs." is 5. Commas between
groups of three digits belong to the number, a currency sign before it and a unit behind it are passed over, ``12%`` is
0.12 where the target is a plain number below 1 and 12 where the target is a percentage, too. Number words up to ten are
numbers. Two different numbers, or none, are unparsed and so wrong. The tolerance is a share of the target or a
distance, 0 as well.

What an answer is read as is the target if it is accepted, and else the answer's own text.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning_m2pt.metrics.open_answers.texts import holdable
from lightning_m2pt.metrics.open_answers.tolerance import Tolerance, tolerance_of
from lightning_m2pt.metrics.rule import Parse, Parsed, Predictions
from lightning_m2pt.metrics.vqa import NUMBER_WORDS

LONGEST_NUMBER = 64
"""Characters; a longer text is no number that anybody asks for, and Python would take time to read it."""
NUMBER = re.compile(
    r"(?<![\w.])[-+\u2212]?(?:\d{1,3}(?:,\d{3}){1,8}(?!\d)|\d{1,30})(?:\.\d{1,30})?(?:[eE][-+]?\d{1,3})?(?:\s?%)?",
    re.ASCII,
)
MOST_TRIED = 100
WORD = re.compile(rf"\b(?:{'|'.join(NUMBER_WORDS)})\b", re.IGNORECASE)


def target_and_tolerance(row: Mapping[str, Any]) -> list[str]:
    """Returns what the rules compare a prediction's answer with."""
    return [row["target"], row["tolerance"]]


def relaxed_accuracy(answer: str, compared: Sequence[str]) -> str | None:
    """Returns the target if the published function accepts an answer, else the answer's text, or None for an empty one.

    Args:
        answer: What was answered.
        compared: The target and its tolerance; nothing leaves the answer as it is.
    """
    text = holdable(answer.strip())
    if not compared:
        return text or None
    target, tolerance = compared[0].strip(), tolerance_of(compared[1], "tolerance")
    return target_if(is_relaxed_equal(text, target, tolerance), compared[0], text)


def is_relaxed_equal(answer: str, target: str, tolerance: Tolerance) -> bool:
    """Tells whether ``relaxed_correctness`` calls an answer right."""
    number, right = python_number(answer), python_number(target)
    if number is not None and right:
        return abs(number - right) / abs(right) <= tolerance.size
    return answer.lower() == target.lower()


def python_number(text: str) -> float | None:
    """Returns a text as Python's ``float`` reads it, one in percent divided by 100, or None."""
    if len(text) > LONGEST_NUMBER:
        return None
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


def number_within(answer: str, compared: Sequence[str]) -> str | None:
    """Returns the target if the one number of an answer is near enough, else that number, or None for several or none.

    Args:
        answer: What was answered.
        compared: The target and its tolerance; nothing leaves the number as it is.
    """
    found = numbers_in(answer)
    if len({value for value, _ in found}) != 1:
        return None
    number, in_percent = found[0]
    if not compared:
        return repr(number)
    (right, right_in_percent), *_ = numbers_in(compared[0])
    if in_percent and not right_in_percent and abs(right) < 1:
        number /= 100
    return target_if(tolerance_of(compared[1], "tolerance").accepts(number, right), compared[0], repr(number))


def numbers_in(text: str) -> list[tuple[float, bool]]:
    """Returns the numbers in a text, and whether each stands in percent."""
    written = NUMBER.findall(text)
    found = [(float(one.rstrip("% ").replace(",", "").replace("\u2212", "-")), one.endswith("%")) for one in written]
    return found + [(float(NUMBER_WORDS.index(word.lower())), False) for word in WORD.findall(text)]


def target_if(is_right: bool, target: str, text: str) -> str | None:
    """Returns the target of a right answer, and of a wrong one its text, or None if it is empty."""
    if is_right:
        return target
    return (text if text != target else f"{text} ") or None


def best_constant_number(read: Parse) -> Callable[[Predictions, Parsed], float]:
    """Returns what finds the highest accuracy of one answer to all questions; tried are the hundred commonest targets.

    Args:
        read: The rule's reading.
    """

    def best(predictions: Predictions, _constants: Parsed) -> float:
        asked = Counter((row["target"], row["tolerance"]) for row in predictions)
        targets = Counter(row["target"] for row in predictions)
        tried = sorted(targets, key=lambda target: (-targets[target], target))[:MOST_TRIED]
        return max(
            sum(number for compared, number in asked.items() if read(constant, compared) == compared[0])
            for constant in tried
        ) / len(predictions)

    return best
