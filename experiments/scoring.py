"""From a prediction file to a score file; needs no torch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_m2pt.atomic_files import write_atomically
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.predictions import PredictionFile, check_same_questions, read_predictions
from lightning_m2pt.metrics.rules import fitting_rules
from lightning_m2pt.metrics.score import Score, score

EVERY_FITTING_RULE = "all"


def score_file(predictions: Path, rule: str | None = None) -> tuple[dict[str, Any], Score]:
    """Scores one prediction file.

    Args:
        predictions: The JSONL file.
        rule: Name of a rule; None takes the file's default.

    Returns:
        The file's header and the score.

    Raises:
        BadInputError: If the file is damaged or the rule does not fit.
    """
    content = read_predictions(predictions)
    return dict(content.header), score_content(predictions, content, rule or content.header["default_rule"])


def score_under(predictions: Path, rules: Sequence[str], against: Path | None = None) -> list[Score]:
    """Scores one prediction file under several rules.

    Args:
        predictions: The JSONL file.
        rules: Names of rules, ``all`` for every rule that fits; none takes the file's default.
        against: Another prediction file, which must answer the same questions.

    Raises:
        BadInputError: If a file is damaged, the questions differ, or a rule does not fit.
    """
    content = read_predictions(predictions)
    if against is not None:
        check_same_questions(
            content.predictions, [row["id"] for row in read_predictions(against).predictions], str(predictions)
        )
    named = rules or [content.header["default_rule"]]
    fitting = fitting_rules(content.header, content.predictions) if EVERY_FITTING_RULE in named else []
    names = dict.fromkeys(name for rule in named for name in (fitting if rule == EVERY_FITTING_RULE else [rule]))
    return [score_content(predictions, content, name) for name in names]


def score_content(predictions: Path, content: PredictionFile, rule: str) -> Score:
    """Scores a prediction file's content.

    Args:
        predictions: Where it stands, for errors.
        content: What was read from there.
        rule: Name of a rule.

    Raises:
        BadInputError: If the rule does not fit, naming the file.
    """
    try:
        return score(content.header, content.predictions, rule)
    except BadInputError as error:
        raise BadInputError(
            error.what, where=f"{predictions}: {error.where}", expected=error.expected, hint=error.hint
        ) from error


def write_score(folder: Path, header: dict[str, Any], scored: Score) -> Path:
    """Writes ``scores/<set>.json``: the score, parsed answers, and what the predictions were made with.

    Args:
        folder: The folder that holds ``predictions/``.
        header: The prediction file's header.
        scored: Its score.
    """
    path = folder / "scores" / f"{scored.benchmark}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"predictions_header": header, "toggles": header["toggles"], **scored.to_json()}
    write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    return path
