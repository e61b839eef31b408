"""CIDEr and BLEU of captions, computed by pycocoevalcap.

Source: https://github.com/salaniz/pycocoevalcap, the Python 3 form of COCO's caption evaluation: ``cider`` (CIDEr-D of
Vedantam et al., CVPR 2015, sigma 6, up to four words in a row) and ``bleu`` (Papineni et al., ACL 2002, over the whole
set, the reference of the nearest length). What stands here is how answers come to it: their words
(``lightning_m2pt.metrics.open_answers.caption_words``), in the order of the questions' ids, so that no digit depends on
the order of a file.

CIDEr is 0 to 10, and papers print it times 100. How rare a word is comes from the references of the questions scored: a
part of a set, or another one, gives another CIDEr to the same caption. Intervals resample the questions' own CIDEr, the
rarity of words staying as it is in the whole set.

Chance is the best of some of the references as answer to all questions: as many as make ``MOST_COMPARED`` comparisons,
the commonest first.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import fsum
from typing import Any

from lightning_m2pt.errors import EnvironmentFailure
from lightning_m2pt.metrics.open_answers.caption_words import caption_words
from lightning_m2pt.metrics.open_answers.texts import holdable
from lightning_m2pt.metrics.rule import Parsed, Predictions, Summary
from lightning_m2pt.metrics.subtasks import rows_of_subtasks

MOST_CIDER = 10.0
WORDS_IN_A_ROW = 4
MOST_COMPARED = 4_000
SMALL, TINY = 1e-9, 1e-15
"""What pycocoevalcap adds to divisors and dividends."""
OVERALL = "overall"


def parse_caption(answer: str) -> str | None:
    """Returns an answer's words as text that a file can hold, or None for an answer without any."""
    return holdable(caption_words(answer)) or None


def words_of_references(row: Mapping[str, Any]) -> list[str]:
    """Returns the words of a question's references."""
    return [caption_words(reference) for reference in row["references"]]


def scorers() -> tuple[Any, Any]:
    """Returns pycocoevalcap's classes of CIDEr and BLEU.

    Raises:
        EnvironmentFailure: If it is not installed.
    """
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
    except ImportError as error:
        raise EnvironmentFailure(
            "captions are scored by pycocoevalcap, which is not installed",
            where="pycocoevalcap",
            expected="the extra `captions`",
            hint="pip install -c constraints.txt -e '.[captions]'",
        ) from error
    return Cider, Bleu


def in_order(predictions: Predictions) -> list[int]:
    """Returns the positions of predictions in the order of their ids."""
    return sorted(range(len(predictions)), key=lambda position: str(predictions[position]["id"]))


def compared(predictions: Predictions, parsed: Parsed) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Returns references and answers as pycocoevalcap takes them, by position, in the order of the ids."""
    order = in_order(predictions)
    references = {position: words_of_references(predictions[position]) for position in order}
    return references, {position: [parsed[position] or ""] for position in order}


def cider_of_each(predictions: Predictions, parsed: Parsed) -> tuple[float, list[float]]:
    """Returns the set's CIDEr, and every answer's own.

    Raises:
        EnvironmentFailure: If pycocoevalcap is not installed.
    """
    cider, _ = scorers()
    references, answers = compared(predictions, parsed)
    whole, each = cider().compute_score(references, answers)
    by_position = dict(zip(references, map(float, each), strict=True))
    return float(whole), [by_position[position] for position in range(len(predictions))]


def bleu_of_all(predictions: Predictions, parsed: Parsed) -> list[float]:
    """Returns BLEU-1 to BLEU-4 of the set.

    Raises:
        EnvironmentFailure: If pycocoevalcap is not installed.
    """
    _, bleu = scorers()
    references, answers = compared(predictions, parsed)
    return [float(value) for value in bleu(WORDS_IN_A_ROW).compute_score(references, answers, verbose=0)[0]]


def cider_sums(predictions: Predictions, parsed: Parsed) -> list[list[float]]:
    """Returns every answer's own CIDEr, and one question."""
    return [[value, 1.0] for value in cider_of_each(predictions, parsed)[1]]


def mean_of_sums(sums: Sequence[float]) -> float:
    """Returns a sum over questions divided by their number."""
    return sums[0] / sums[1]


def bleu_sums(predictions: Predictions, parsed: Parsed) -> list[list[float]]:
    """Returns every answer's words, those of its nearest reference, and n-grams that could match and that do, by n."""
    scorers()
    from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

    sums = []
    for row, answer in zip(predictions, parsed, strict=True):
        counts = cook_test(answer or "", cook_refs(words_of_references(row)))
        nearest = min((abs(length - counts["testlen"]), length) for length in counts["reflen"])[1]
        sums.append([float(one) for one in (counts["testlen"], nearest, *counts["guess"], *counts["correct"])])
    return sums


def bleu_of_sums(sums: Sequence[float]) -> float:
    """Returns BLEU-4 as pycocoevalcap makes it of sums over a set; its own class makes them anew for every set."""
    words, nearest, *counts = sums
    product = 1.0
    for could, did in zip(counts[:WORDS_IN_A_ROW], counts[WORDS_IN_A_ROW:], strict=True):
        product *= (did + TINY) / (could + SMALL)
    ratio = (words + TINY) / (nearest + SMALL)
    shortness = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    bleu: float = product ** (1 / WORDS_IN_A_ROW) * shortness
    return bleu


def summarise_cider(predictions: Predictions, parsed: Parsed) -> Summary:
    """Returns the set's CIDEr, and the mean of its answers' own in every subtask."""
    whole, each = cider_of_each(predictions, parsed)

    def row(positions: Sequence[int]) -> dict[str, float]:
        return {"cider": fsum(each[position] for position in positions) / len(positions), "n": float(len(positions))}

    table = {OVERALL: {"cider": whole, "n": float(len(each))}} | rows_of_subtasks(predictions, row)
    return Summary("CIDEr", whole, MOST_CIDER, table)


def summarise_bleu(predictions: Predictions, parsed: Parsed) -> Summary:
    """Returns the set's BLEU, and that of every subtask by itself."""

    def row(positions: Sequence[int]) -> dict[str, float]:
        values = bleu_of_all([predictions[at] for at in positions], [parsed[at] for at in positions])
        return {f"bleu_{number}": value for number, value in enumerate(values, start=1)} | {"n": float(len(positions))}

    table = {OVERALL: row(range(len(predictions)))} | rows_of_subtasks(predictions, row)
    return Summary("BLEU-4", table[OVERALL]["bleu_4"], 1.0, table)


def best_constant_caption(
    summarise: Callable[[Predictions, Parsed], Summary],
) -> Callable[[Predictions, Parsed], float]:
    """Returns what finds the best of some references as answer to all questions.

    Args:
        summarise: The rule's numbers.
    """

    def best(predictions: Predictions, _constants: Parsed) -> float:
        said = Counter(words for row in predictions for words in words_of_references(row))
        commonest = sorted(said, key=lambda words: (-said[words], words))
        tried = commonest[: max(1, MOST_COMPARED // len(predictions))]
        return max(summarise(predictions, [words or None] * len(predictions)).raw for words in tried)

    return best
