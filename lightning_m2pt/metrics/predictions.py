"""The prediction file: one JSON object a line, first a header, then one line a question."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.strict_json import parse_json

PREDICTION_FORMAT = 1
HEADER_TEXTS = ("benchmark", "template", "data_revision", "default_rule")
SET_NAME = re.compile(r"\w[\w.-]*")  # files are named after it
FIELDS = ("id", "set", "subtask", "question", "answer", "target", "image_id")


@dataclass(frozen=True)
class PredictionFile:
    """A prediction file's content.

    Attributes:
        header: ``format``, ``benchmark``, ``template``, ``decoding``, ``data_revision``, ``adapter``,
            ``default_rule``, ``toggles``, ``classes``, and ``questions``, the number of lines that follow, in all but
            older files.
        predictions: ``id``, ``set``, ``subtask``, ``question``, ``answer``, ``target``, ``image_id`` of every question,
            and ``references``, a list of texts, of those with several accepted answers.
    """

    header: Mapping[str, Any]
    predictions: Sequence[Mapping[str, Any]]


def read_predictions(path: Path) -> PredictionFile:
    """Returns a checked prediction file.

    Raises:
        BadInputError: If it is missing, cut off, or a line is wrong, naming file and line; or if there are not as many
            lines as its header says.
    """
    if not path.is_file():
        raise BadInputError(
            "this is a folder" if path.is_dir() else "the prediction file does not exist",
            where=str(path),
            expected="a prediction file, predictions/SET.jsonl of a run or of one of its evaluations",
            hint="`m2pt evaluate` writes them; `m2pt report` takes whole folders",
        )
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise BadInputError("this is not UTF-8 text", where=str(path), expected="a prediction file") from error
    if lines.pop():
        raise BadInputError("the last line is cut off", where=f"{path}:{len(lines) + 1}", hint="predict again")
    if not lines:
        raise BadInputError("the prediction file is empty", where=str(path), expected="a header line")
    header = parsed_line(lines[0], f"{path}:1")
    check_header(header, f"{path}:1")
    predictions = [parsed_line(line, f"{path}:{number}") for number, line in enumerate(lines[1:], start=2)]
    for number, prediction in enumerate(predictions, start=2):
        check_prediction(prediction, f"{path}:{number}")
    check_ids(predictions, str(path))
    check_count(header, len(predictions), str(path))
    return PredictionFile(header, predictions)


def parsed_line(line: str, where: str) -> dict[str, Any]:
    """Returns one line's JSON object.

    Raises:
        BadInputError: If it is none.
    """
    value = parse_json(line, where, first_line=0, expected="one JSON object a line", hint="predict again")
    if not isinstance(value, dict):
        raise BadInputError(f"the line is a {type(value).__name__}", where=where, expected="a JSON object")
    return value


def check_header(header: Mapping[str, Any], where: str) -> None:
    """Refuses a header of another format, without all its texts, or with what a score file could not hold.

    Raises:
        BadInputError: Naming the first thing that is wrong.
    """
    if header.get("format") != PREDICTION_FORMAT:
        raise BadInputError(f"the format is {header.get('format')!r:.40}", where=where, expected=str(PREDICTION_FORMAT))
    for key in HEADER_TEXTS:
        if not isinstance(header.get(key), str):
            raise BadInputError(f"the header has no text under {key!r}", where=where)
    if not SET_NAME.fullmatch(header["benchmark"]):
        raise BadInputError(
            f"the value is {header['benchmark']!r:.40}", where=f"{where}: benchmark", expected="the name of a set"
        )
    try:
        json.dumps(header, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise BadInputError(
            "the header holds half a character, or a number that is none", where=where, expected="JSON and Unicode text"
        ) from error


def check_prediction(prediction: Mapping[str, Any], where: str) -> None:
    """Refuses a prediction without all its texts, or with references that are none.

    Raises:
        BadInputError: Naming the first key that is missing or holds something else.
    """
    for key in FIELDS:
        if not isinstance(prediction.get(key), str):
            raise BadInputError(f"the value is {prediction.get(key)!r:.40}", where=f"{where}: {key}", expected="a text")
        # What a model answered may be any string; the other texts are written into score files.
        if key != "answer" and not is_encodable(prediction[key]):
            raise BadInputError("the text holds half a character", where=f"{where}: {key}", expected="Unicode text")
    references = prediction.get("references", [""])
    if not isinstance(references, list) or not references or not all(isinstance(text, str) for text in references):
        raise BadInputError(
            f"the value is {references!r:.40}", where=f"{where}: references", expected="a list of one text or more"
        )


def is_encodable(text: str) -> bool:
    """Tells whether a text can be written as UTF-8; JSON may hold lone surrogates, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_ids(predictions: Sequence[Mapping[str, Any]], where: str) -> None:
    """Refuses two predictions with one id.

    Raises:
        BadInputError: Naming the first id that is there twice.
    """
    seen: set[str] = set()
    for prediction in predictions:
        if prediction["id"] in seen:
            raise BadInputError(f"the id {prediction['id']!r:.80} is there twice", where=where, expected="unique ids")
        seen.add(prediction["id"])


def check_count(header: Mapping[str, Any], lines: int, where: str) -> None:
    """Refuses a file with another number of predictions than its header says, if it says one.

    Raises:
        BadInputError: Naming both numbers.
    """
    questions = header.get("questions", lines)
    if type(questions) is not int or questions != lines:
        raise BadInputError(
            f"the header says {questions!r:.40} questions, and {lines} predictions follow",
            where=where,
            expected="one prediction for every question",
            hint="answer the set again",
        )


def check_same_questions(predictions: Sequence[Mapping[str, Any]], ids: Sequence[str], where: str) -> None:
    """Refuses predictions that do not answer exactly the expected questions; the order does not matter.

    Args:
        predictions: The lines of a prediction file.
        ids: The questions' ids.
        where: The prediction file, for the error.

    Raises:
        BadInputError: Naming the first id that is missing, or else the first that is too many.
    """
    answered, asked = {prediction["id"] for prediction in predictions}, set(ids)
    missing = [name for name in ids if name not in answered]
    extra = [prediction["id"] for prediction in predictions if prediction["id"] not in asked]
    if missing or extra:
        first = f"has no answer to {missing[0]!r:.80}" if missing else f"answers {extra[0]!r:.80}, which was not asked"
        raise BadInputError(
            f"the file {first} ({len(missing)} missing, {len(extra)} too many)",
            where=where,
            expected=f"the same {len(asked):,} questions",
        )
