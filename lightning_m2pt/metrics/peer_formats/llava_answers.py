"""Answers of LLaVA's evaluation scripts, as predictions: the questions and right answers come from a prediction file.

Source: ``llava/eval/model_vqa_loader.py`` of https://github.com/haotian-liu/LLaVA. A line is ``{"question_id",
"prompt", "text", "answer_id", "model_id", "metadata"}``, of which the first three are read. It names neither the
picture nor the right answer, so both are looked up among the questions of a prediction file of the same set:

* by ``question_id``, where it is the question's own id (what ``m2pt export predictions`` writes) or names its picture
  and the prompt says which question about it (MME: ``code_reasoning/0020.png``; TextVQA: the picture's id);
* through LLaVA's own question file, where it is a number of its own (POPE): that file's ``image``, ``text`` and
  ``category`` say which question it is.

Prompts are compared without what the scripts add: "Answer the question using a single word or phrase.", MME's "Please
answer yes or no." and the line of OCR tokens; in any case and with any white space.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.peer_formats.common import Export
from lightning_m2pt.metrics.peer_formats.pope import json_lines
from lightning_m2pt.metrics.predictions import (
    LOGARITHMS,
    PREDICTION_FORMAT,
    PredictionFile,
    check_ids,
    check_prediction,
)
from lightning_m2pt.system.strict_json import parse_json

ADDED = re.compile(
    r"^Reference OCR token:.*$|Answer the question using a single word or phrase\.|Please answer yes or no\.",
    re.MULTILINE | re.IGNORECASE,
)
NO_CATEGORY = "default"
"""What LLaVA's question files write where a set has no categories."""
LONGEST_FIRST = 1_000_000
"""Characters of a first line that is looked at to tell what a file holds."""
Line = tuple[str, dict[str, Any]]
Key = tuple[str, str, str]


def is_answer(line: object) -> bool:
    """Tells whether a JSON value is a line of LLaVA's answers."""
    return isinstance(line, dict) and "format" not in line and {"question_id", "text"} <= line.keys()


def holds_answers(path: Path) -> bool:
    """Tells whether a file's first line is one of LLaVA's answers; anything that cannot be read is none."""
    try:
        with path.open(encoding="utf-8") as lines:
            first = lines.readline(LONGEST_FIRST)
        return is_answer(parse_json(first, str(path), first_line=0))
    except (BadInputError, OSError, UnicodeDecodeError):
        return False


def imported_answers(path: Path, asked: PredictionFile, questions: Path | None = None) -> PredictionFile:
    """Returns LLaVA's answers as a prediction file's content.

    Args:
        path: The answers.
        asked: A prediction file of the same set; its answers are not read.
        questions: LLaVA's question file, where ids are its own numbers.

    Raises:
        BadInputError: If a line is wrong, or belongs to no question or to several.
    """
    known = {int_or_text(one, where): (where, one) for where, one in lines_of(questions)} if questions else {}
    table = rows_by_key(asked.predictions)
    rows: list[dict[str, Any]] = []
    used: set[str] = set()
    for where, line in lines_of(path):
        name = int_or_text(line, where)
        if questions is not None and name not in known:
            raise BadInputError(
                f"the question {name!r:.80} is not in the question file", where=where, expected=str(questions)
            )
        keys = keys_of_known(*known[name]) if known else keys_of_answer(name, line, where)
        row = the_row([one for one in rows_under(table, keys) if one["id"] not in used], where, name)
        refuse_other_prompt(line, row, where)
        used.add(row["id"])
        rows.append({**question_of(row), "answer": text_in(line, "text", where)})
        check_prediction(rows[-1], where)
    check_ids(rows, str(path), first_line=1)
    kept = ("benchmark", "default_rule", "data_revision", "classes", "of_questions", "shared_with_tasks")
    header = {key: asked.header[key] for key in kept if key in asked.header}
    made = {"format": PREDICTION_FORMAT, "template": "llava", "decoding": {}, "toggles": {}, "adapter": None}
    return PredictionFile({**made, **header, "questions": len(rows)}, rows)


def refuse_other_prompt(line: Mapping[str, Any], row: Mapping[str, Any], where: str) -> None:
    """Compares an answer's prompt with the question it is taken for; one may say more than the other.

    Raises:
        BadInputError: If they are different questions: ids that only look alike would be scored, and wrongly.
    """
    prompt = bare(text_in(line, "prompt", where)) if "prompt" in line else ""
    question = bare(row["question"])
    if prompt not in question and question not in prompt:
        raise BadInputError(
            f"the prompt is {prompt!r:.60}, and the question {row['id']!r:.40} is another one",
            where=f"{where}: prompt",
            expected=f"{question!r:.80}",
            hint="other numbers need their question file (--questions); take prompts in other words out of the file",
        )


def any_set_files(content: PredictionFile) -> Export:
    """Returns ``answers.jsonl`` and ``questions.jsonl`` of any set as LLaVA's scripts write and read them.

    The question file also names the right answer, which LLaVA's does not.
    """
    answers = [
        {"question_id": row["id"], "prompt": row["question"], "text": row["answer"]} for row in content.predictions
    ]
    questions = [
        {
            "question_id": row["id"],
            "image": row["image_id"],
            "text": row["question"],
            "category": row["subtask"] or NO_CATEGORY,
            "answer": row["target"],
        }
        for row in content.predictions
    ]
    return Export({"answers.jsonl": json_lines(answers), "questions.jsonl": json_lines(questions)})


def question_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a prediction without what was answered."""
    return {key: value for key, value in row.items() if key not in (*LOGARITHMS, "near_tie")}


def lines_of(path: Path) -> Iterator[Line]:
    """Yields (``FILE:LINE``, object) of a JSON lines file.

    Raises:
        BadInputError: If it is missing, no UTF-8 text, or a line is no object.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(
            "the file cannot be read", where=str(path), expected="JSON lines of LLaVA's scripts"
        ) from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            value = parse_json(line, f"{path}:{number}", first_line=0, expected="one JSON object a line")
            if not isinstance(value, dict):
                raise BadInputError("the line is no object", where=f"{path}:{number}", expected="a JSON object")
            yield f"{path}:{number}", value


def int_or_text(line: Mapping[str, Any], where: str) -> str:
    """Returns a line's question id as text.

    Raises:
        BadInputError: If it is neither a number nor a text.
    """
    name = line.get("question_id")
    if type(name) not in (int, str):
        raise BadInputError(f"the value is {name!r:.40}", where=f"{where}: question_id", expected="a number or a text")
    return str(name)


def text_in(line: Mapping[str, Any], key: str, where: str) -> str:
    """Returns a line's text.

    Raises:
        BadInputError: If it is none.
    """
    value = line.get(key)
    if not isinstance(value, str):
        raise BadInputError(f"the value is {value!r:.40}", where=f"{where}: {key}", expected="a text")
    return value


def bare(text: str) -> str:
    """Returns a question without what LLaVA's scripts add, in lower case and with single spaces."""
    return " ".join(ADDED.sub(" ", text).split()).casefold()


def rows_by_key(rows: Sequence[Mapping[str, Any]]) -> dict[Key, list[Mapping[str, Any]]]:
    """Returns predictions by all they may be called: (subtask or empty, id or picture, question or empty)."""
    table: dict[Key, list[Mapping[str, Any]]] = {}
    for row in rows:
        question, subtask, picture = bare(row["question"]), str(row["subtask"]), str(row["image_id"])
        keys = {("", str(row["id"]), ""), ("", picture, question), ("", f"{subtask}/{picture}", question)}
        for key in keys | {(subtask, picture, question)}:
            table.setdefault(key, []).append(row)
    return table


def keys_of_answer(name: str, line: Mapping[str, Any], where: str) -> list[Key]:
    """Returns what an answer's question may be called, by its id alone or by picture and prompt."""
    prompt = bare(text_in(line, "prompt", where)) if "prompt" in line else ""
    return [("", name, ""), ("", name, prompt)]


def keys_of_known(where: str, question: Mapping[str, Any]) -> list[Key]:
    """Returns what a question of LLaVA's question file may be called."""
    picture, text = text_in(question, "image", where), bare(text_in(question, "text", where))
    category = question.get("category")
    return [(category if isinstance(category, str) and category != NO_CATEGORY else "", picture, text)]


def rows_under(table: Mapping[Key, Sequence[Mapping[str, Any]]], keys: Sequence[Key]) -> Sequence[Mapping[str, Any]]:
    """Returns the predictions under the first key that has any."""
    return next((rows for key in keys if (rows := table.get(key))), ())


def the_row(found: Sequence[Mapping[str, Any]], where: str, name: str) -> Mapping[str, Any]:
    """Returns the prediction that an answer belongs to: of equal questions of one subtask the first.

    Args:
        found: What fits, but for what is answered already.
        where: The answer's line, for the error.
        name: The answer's question id.

    Raises:
        BadInputError: If nothing fits, or questions of several subtasks.
    """
    if not found or len({row["subtask"] for row in found}) > 1:
        what = "questions of several subtasks fit" if found else "no question that is not answered yet fits"
        raise BadInputError(
            f"{what} the question id {name!r:.80}",
            where=where,
            expected="one question of the file that --against names",
            hint="numbers of LLaVA's own need its question file: --questions llava_pope_test.jsonl" * name.isdecimal(),
        )
    return found[0]
