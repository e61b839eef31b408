"""One line of a prediction file."""

from collections.abc import Mapping
from typing import Any

from lightning_m2pt.answering.decoding import Answer
from lightning_m2pt.answering.near_ties import near_tie_limit
from lightning_m2pt.inputs.samples import Question


def answered_question(benchmark: str, question: Question, text: str) -> dict[str, Any]:
    """Returns what scores need of a question and its answer; what only some kinds have only where it is."""
    line: dict[str, Any] = {
        "id": question.id,
        "set": benchmark,
        "subtask": question.subtask,
        "question": question.text,
        "answer": text,
        "target": question.target,
        "image_id": question.image_id,
    }
    if question.references:
        line["references"] = list(question.references)
    if question.choices:
        line["choices"] = list(question.choices)
    if question.tolerance:
        line["tolerance"] = question.tolerance
    return line


def prediction_line(benchmark: str, question: Question, answer: Answer, dtype: str = "float32") -> dict[str, Any]:
    """Returns one question's line.

    ``log_probabilities`` is there only where candidates were compared, ``premise_log_probabilities`` only where a rule
    takes them away from these, ``near_tie`` only where rounding may decide.

    Args:
        benchmark: Name of the set.
        question: The question.
        answer: The answer.
        dtype: Name of the type that the answer was computed in: its rounding decides what is a near tie.
    """
    line = answered_question(benchmark, question, answer.text)
    for key in ("log_probabilities", "premise_log_probabilities"):
        values: Mapping[str, float] = getattr(answer, key)
        if values:
            line[key] = {text: round(value, 6) for text, value in values.items()}
    if answer.margin < near_tie_limit(dtype):
        line["near_tie"] = True
    return line
