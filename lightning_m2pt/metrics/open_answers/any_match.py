"""Any of a question's right answers, as equal texts: this project's rule for questions with more than one.

Source: ours. Answer and right answers are compared after VQA's word processing (``lightning_m2pt.metrics.vqa``): in any
case, without punctuation and articles, number words as digits. How many people gave an answer does not matter; where it
should, ``vqa_accuracy`` counts them. What an answer is read as is the target if it equals any of them, and else its own
processed text.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from lightning_m2pt.metrics.open_answers.texts import holdable
from lightning_m2pt.metrics.rule import Parsed, Predictions
from lightning_m2pt.metrics.vqa import vqa_normalised


def compared_text(text: str) -> str:
    """Returns what is compared of a text: processed, or as it is where nothing is left of it ("A" is an article)."""
    return vqa_normalised(text) or " ".join(text.split()).casefold()


known = lru_cache(maxsize=4096)(compared_text)


def target_and_references(row: Mapping[str, Any]) -> list[str]:
    """Returns what the rule compares a prediction's answer with: the target first."""
    return [row["target"], *row["references"]]


def any_match(answer: str, accepted: Sequence[str]) -> str | None:
    """Returns the target if an answer equals one of the accepted ones, else its processed text, or None without one.

    Args:
        answer: What was answered.
        accepted: The target, and all right answers; nothing leaves the answer as it is.
    """
    text = compared_text(answer)
    if text and any(text == known(one) for one in accepted):
        return accepted[0]
    return holdable(text) or None


def best_constant_match(predictions: Predictions, _constants: Parsed) -> float:
    """Returns the highest accuracy of one answer to all questions, over all right answers."""
    gained: Counter[str] = Counter()
    for row in predictions:
        gained.update({known(one) for one in target_and_references(row)})
    return max(gained.values()) / len(predictions)
