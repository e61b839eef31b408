"""The prediction file: one JSON object a line, first a header, then one line a question."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.choice_letter import MOST_CHOICES
from lightning_m2pt.metrics.open_answers.tolerance import CHARTQA, tolerance_of
from lightning_m2pt.system.strict_json import parse_json

PREDICTION_FORMAT = 1
OF_QUESTIONS = "of_questions"
"""How many questions the set has; decides no answer, and is there only where a part of them was asked."""
SHARED_WITH_TASKS = "shared_with_tasks"
"""What the set's class says that it shares with tuning tasks: reasons by pattern of the tasks' names."""
ASKED_WITH = "asked_with"
"""What was put to the model beside picture and question; there only where it was, and part of a score's name."""
ADAPTER_CHOSEN = "adapter_chosen"
"""Of which step the adapter is, and what it was chosen by; there only where it is not a run's last."""
MOST_QUESTIONS = 10**9
HEADER_TEXTS = ("benchmark", "template", "data_revision", "default_rule")
SET_NAME = re.compile(r"\w[\w.-]*")  # files are named after it
LOGARITHMS = ("log_probabilities", "premise_log_probabilities")
"""What is there only where candidates were compared: of each its log-probability, and without content."""
FIELDS = ("id", "set", "subtask", "question", "answer", "target", "image_id")
QUESTION_KEYS = ("set", "subtask", "question", "target", "image_id", "references", "choices", "tolerance")
"""What makes a question the same one beside its id."""


@dataclass(frozen=True)
class PredictionFile:
    """A prediction file's content.

    Attributes:
        header: ``format``, ``benchmark``, ``template``, ``decoding``, ``data_revision``, ``adapter``,
            ``default_rule``, ``toggles``, ``classes``, and ``questions``, the number of lines that follow, in all but
            older files; ``of_questions``, how many the set has, where not all of them were asked.
        predictions: ``id``, ``set``, ``subtask``, ``question``, ``answer``, ``target``, ``image_id`` of every question,
            and ``references``, a list of texts, of those with several accepted answers, ``choices``, the options,
            of multiple-choice questions, and ``tolerance``, such as ``5%``, of those that ask for a number.
    """

    header: Mapping[str, Any]
    predictions: Sequence[Mapping[str, Any]]


def read_predictions(path: Path) -> PredictionFile:
    """Returns a checked prediction file.

    Raises:
        BadInputError: If it is missing, cut off, or a line is wrong or of another set, naming file and line; or if
            there are not as many lines as its header says.
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
        refuse_second_header(prediction, f"{path}:{number}")
        check_prediction(prediction, f"{path}:{number}")
        check_set(prediction, header["benchmark"], f"{path}:{number}")
    check_ids(predictions, str(path), first_line=2)
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


def refuse_second_header(line: Mapping[str, Any], where: str) -> None:
    """Refuses a header among the predictions.

    Raises:
        BadInputError: If the line is one.
    """
    if "format" in line and "id" not in line:
        raise BadInputError(
            "this is a second header",
            where=where,
            expected="predictions of one evaluation: one header, then one line a question",
            hint="the files of several evaluations are scored one by one: m2pt score FILE FILE",
        )


def check_header(header: Mapping[str, Any], where: str) -> None:
    """Refuses a header of another format, without all its texts, or with what a score file could not hold.

    Raises:
        BadInputError: Naming the first thing that is wrong.
    """
    if "format" not in header and {"question_id", "text"} <= header.keys():
        raise BadInputError(
            "these are answers of LLaVA's scripts, which name neither pictures nor right answers",
            where=where,
            expected="a prediction file; or such answers and --against PREDICTIONS, a prediction file of the same set",
            hint="numbers of LLaVA's own (POPE) need its question file, too: --questions llava_pope_test.jsonl",
        )
    if type(header.get("format")) is not int or header["format"] != PREDICTION_FORMAT:
        raise BadInputError(f"the format is {header.get('format')!r:.40}", where=where, expected=str(PREDICTION_FORMAT))
    for key in HEADER_TEXTS:
        if not isinstance(header.get(key), str):
            raise BadInputError(f"the header has no text under {key!r}", where=where)
    if not SET_NAME.fullmatch(header["benchmark"]):
        raise BadInputError(
            f"the value is {header['benchmark']!r:.40}", where=f"{where}: benchmark", expected="the name of a set"
        )
    for key, kind, expected in (
        ("decoding", dict, "settings by name"),
        ("toggles", dict, "settings by name"),
        (SHARED_WITH_TASKS, dict, "reasons by pattern of tasks' names"),
        ("examples", dict, "shots and a fingerprint"),
        ("classes", list, "a list of texts"),
    ):
        if not isinstance(header.get(key, kind()), kind):
            raise BadInputError(f"the value is {header[key]!r:.40}", where=f"{where}: {key}", expected=expected)
    classes = [name for name in header.get("classes", []) if isinstance(name, str)]
    if len(set(classes)) < len(header.get("classes", [])):
        raise BadInputError("a class is no text, or there twice", where=f"{where}: classes", expected="different texts")
    if not isinstance(header.get(ASKED_WITH, ""), str) or not is_encodable(header.get(ASKED_WITH, "")):
        raise BadInputError(
            f"the value is {header[ASKED_WITH]!r:.40}", where=f"{where}: {ASKED_WITH}", expected="a text"
        )
    if not isinstance(header.get("decoding", {}).get("dtype"), str | None):
        raise BadInputError("this is no type's name", where=f"{where}: decoding: dtype", expected="such as float32")
    for key, given in ((OF_QUESTIONS, header), ("shots", header.get("examples", {}))):
        if type(given.get(key, 1)) is not int or not 1 <= given.get(key, 1) <= MOST_QUESTIONS:
            raise BadInputError(
                f"the value is {given[key]!r:.40}",
                where=f"{where}: {key}",
                expected=f"a whole number from 1 to {MOST_QUESTIONS:,}",
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
    for key in LOGARITHMS:
        logarithms = prediction.get(key, {})
        if not isinstance(logarithms, dict) or not all(map(is_number, logarithms.values())):
            raise BadInputError(
                f"the value is {logarithms!r:.80}", where=f"{where}: {key}", expected="numbers by answer"
            )
    references = prediction.get("references", [""])
    if not isinstance(references, list) or not references or not all(isinstance(text, str) for text in references):
        raise BadInputError(
            f"the value is {references!r:.40}", where=f"{where}: references", expected="a list of one text or more"
        )
    tolerance = prediction.get("tolerance", CHARTQA)
    if not isinstance(tolerance, str):
        raise BadInputError(
            f"the value is {tolerance!r:.40}", where=f"{where}: tolerance", expected="a text such as 5%"
        )
    tolerance_of(tolerance, f"{where}: tolerance")
    choices = prediction.get("choices", ["yes", "no"])
    if not isinstance(choices, list) or not 2 <= len(choices) <= MOST_CHOICES or not are_different_texts(choices):
        raise BadInputError(
            f"the value is {choices!r:.40}",
            where=f"{where}: choices",
            expected=f"a list of 2 to {MOST_CHOICES} different texts",
        )


def are_different_texts(values: Sequence[Any]) -> bool:
    """Tells whether JSON values are texts, none of them empty or there twice."""
    texts = [value for value in values if isinstance(value, str) and value.strip()]
    return len(set(texts)) == len(values)


def is_number(value: Any) -> bool:  # noqa: ANN401  (any JSON value)
    """Tells whether a JSON value is a number that a float can hold."""
    try:
        return isinstance(value, float | int) and math.isfinite(value)
    except OverflowError:
        return False


def is_encodable(text: str) -> bool:
    """Tells whether a text can be written as UTF-8; JSON may hold lone surrogates, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_set(prediction: Mapping[str, Any], benchmark: str, where: str) -> None:
    """Refuses a prediction of another set than its header's.

    Raises:
        BadInputError: Naming both.
    """
    if prediction["set"] != benchmark:
        raise BadInputError(
            f"this is a prediction of {prediction['set']!r:.40}",
            where=f"{where}: set",
            expected=f"{benchmark}, the set that the header names",
            hint="every set has a file of its own",
        )


def check_ids(predictions: Sequence[Mapping[str, Any]], where: str, first_line: int | None = None) -> None:
    """Refuses two predictions with one id.

    Args:
        predictions: The predictions.
        where: What they stand in, for the error.
        first_line: The line of the first one, if they stand in a file.

    Raises:
        BadInputError: Naming the first id that is there twice, and the line where it recurs.
    """
    seen: set[str] = set()
    for number, prediction in enumerate(predictions, start=first_line or 0):
        if prediction["id"] in seen:
            raise BadInputError(
                f"the id {prediction['id']!r:.80} is there twice",
                where=where if first_line is None else f"{where}:{number}",
                expected="unique ids",
            )
        seen.add(prediction["id"])


def check_count(header: Mapping[str, Any], lines: int, where: str) -> None:
    """Refuses a file with another number of predictions than its header says, or with more than the set has.

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
    if header.get(OF_QUESTIONS, lines) < lines:
        raise BadInputError(
            f"the header says that the set has {header[OF_QUESTIONS]:,} questions, and {lines:,} predictions follow",
            where=where,
            expected="at most one prediction for every question",
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


def check_paired(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], names: tuple[str, str]
) -> None:
    """Refuses two runs that answered different questions; their order does not matter.

    Args:
        first: Predictions of one run.
        second: Predictions of the other.
        names: What both are called.

    Raises:
        BadInputError: Naming the first question that one lacks, or whose text, target, picture, subtask or references
            differ.
    """
    by_id = [{row["id"]: row for row in predictions} for predictions in (first, second)]
    for have, lack, (holder, lacker) in ((0, 1, names), (1, 0, names[::-1])):
        missing = next((name for name in by_id[have] if name not in by_id[lack]), None)
        if missing is not None:
            raise BadInputError(
                f"the question {missing!r:.80} of {holder} is not among those of {lacker}",
                where="predictions",
                expected="two runs that answered the same questions",
                hint="evaluate both with the same data and the same limit",
            )
    for name, row in by_id[0].items():
        other = by_id[1][name]
        key = next((key for key in QUESTION_KEYS if row.get(key) != other.get(key)), None)
        if key is not None:
            raise BadInputError(
                f"the {key} of {name!r:.80} is {row.get(key)!r:.40} in {names[0]} and {other.get(key)!r:.40} in "
                f"{names[1]}",
                where="predictions",
                expected="two runs that answered the same questions",
            )
