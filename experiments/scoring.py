"""From a prediction file to a score file; needs no torch."""

import json
from pathlib import Path
from typing import Any

from lightning_m2pt.atomic_files import write_atomically
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.predictions import PredictionFile, read_predictions
from lightning_m2pt.metrics.score import Score, score


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
    content, scored = scored_predictions(predictions, rule)
    return dict(content.header), scored


def scored_predictions(predictions: Path, rule: str | None = None) -> tuple[PredictionFile, Score]:
    """Scores one prediction file, and keeps what was scored.

    Args:
        predictions: The JSONL file.
        rule: Name of a rule; None takes the file's default.

    Raises:
        BadInputError: If the file is damaged or the rule does not fit.
    """
    content = read_predictions(predictions)
    try:
        return content, score(content.header, content.predictions, rule or content.header["default_rule"])
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
