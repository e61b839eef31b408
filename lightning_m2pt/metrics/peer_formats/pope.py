"""POPE's answers as the official script and LLaVA's read them.

Sources: ``evaluate.py`` of https://github.com/AoiDragon/POPE and ``llava/eval/eval_pope.py`` of
https://github.com/haotian-liu/LLaVA. Both match answers and labels by their order alone, so the answers are in the
order of the question numbers that the label files count up, whatever the order of the prediction file: one file a
split for the first and all splits in one file for the second. Neither looks at a number of questions: with an older
label file (2,910 random questions) or a limited set they score the wrong pairs.

Both split a response at single spaces only, so that "No" before a line break is no word of its own and reads as yes.
Line breaks and tabs become spaces, as in our rule; without them the two readings could differ.

LLaVA's script needs a question file to find every answer's split, and its own ids cannot be known here, so one with
our ids is written beside the answers.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.peer_formats.common import Export, encoded, flattened, yes_or_no
from lightning_m2pt.metrics.predictions import PredictionFile

SPLITS = ("random", "popular", "adversarial")
"""As in ``data_modules.pope``, which would bring torch along."""

MOST_DIGITS = 18
ORDER_NOTE = "answers and labels are matched by order: your label files must hold just these questions"


def pope_official_files(content: PredictionFile) -> Export:
    """Returns ``coco_pope_<split>_answers.jsonl`` for every split, lines with ``question`` and ``answer``.

    Raises:
        BadInputError: If a split is unknown, or a target neither yes nor no.
    """
    lines: dict[str, list[Mapping[str, str]]] = {}
    for row in in_question_order(content.predictions):
        yes_or_no(row)
        answer = {"question": row["question"], "answer": flattened(row["answer"])}
        lines.setdefault(split_of(row), []).append(answer)
    files = {f"coco_pope_{split}_answers.jsonl": json_lines(of_split) for split, of_split in lines.items()}
    return Export(files, note(lines))


def llava_files(content: PredictionFile) -> Export:
    """Returns ``answers.jsonl`` for ``--result-file`` and ``questions.jsonl`` for ``--question-file``.

    Raises:
        BadInputError: If a split is unknown, or a target neither yes nor no.
    """
    splits: dict[str, list[str]] = {}
    questions, answers = [], []
    for row in in_question_order(content.predictions):
        yes_or_no(row)
        splits.setdefault(split_of(row), []).append(row["id"])
        questions.append(
            {
                "question_id": row["id"],
                "image": row["image_id"],
                "text": row["question"],
                "category": row["subtask"],
            }
        )
        answers.append({"question_id": row["id"], "prompt": row["question"], "text": flattened(row["answer"])})
    return Export({"answers.jsonl": json_lines(answers), "questions.jsonl": json_lines(questions)}, note(splits))


def json_lines(records: Iterable[Mapping[str, object]]) -> bytes:
    """Returns one JSON object a line."""
    return encoded("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def in_question_order(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns predictions split after split, each by the numbers in the ids (``random/17``).

    Raises:
        BadInputError: If an id has no number, or a split is unknown.
    """
    for row in rows:
        if not number_of(row).isdecimal() or len(number_of(row)) > MOST_DIGITS:
            raise BadInputError(
                f"the id {row['id']!r:.80} has no number", where="id", expected="SPLIT/NUMBER, as in POPE's files"
            )
    return sorted(rows, key=lambda row: (SPLITS.index(split_of(row)), int(number_of(row))))


def number_of(row: Mapping[str, Any]) -> str:
    """Returns a question's number within its split, as POPE's files have it."""
    return str(row["id"].rpartition("/")[2])


def split_of(row: Mapping[str, Any]) -> str:
    """Returns the split of a question.

    Raises:
        BadInputError: If it is none of POPE's.
    """
    split: str = row["subtask"]
    if split not in SPLITS:
        raise BadInputError(
            f"unknown POPE split {split!r:.40}", where=repr(row["id"])[:80], expected=" or ".join(SPLITS)
        )
    return split


def note(splits: Mapping[str, Sequence[object]]) -> str:
    """Returns what to compare before trusting a score: how many questions every split has."""
    return f"{ORDER_NOTE} ({', '.join(f'{split} {len(of_split):,}' for split, of_split in splits.items())})"
