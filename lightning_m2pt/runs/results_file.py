"""What ``m2pt train`` keeps of its comparison in a run's folder: the scores of the untouched and of the tuned model."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.score import Score
from lightning_m2pt.system.strict_json import parse_json

RESULTS_FILE = "results.json"
"""What ``m2pt train`` writes when all else is there."""
UNTOUCHED, TUNED = "frozen", "tuned"
"""Its sections with scores by set."""
SAME_QUESTIONS = ("benchmark", "rule", "maximum", "chance", "n", "part")
"""What two scores have alike that may stand beside each other."""


def untouched_scores(run: Path, tuned: Mapping[str, Score]) -> dict[str, Score]:
    """Returns what the untouched model scored in the evaluation that scores of a run are of.

    Args:
        run: The run's folder.
        tuned: Scores of its adapter by set. One that is not the comparison's, since the run was evaluated anew on other
            questions or with another adapter, is compared with nothing.

    Returns:
        By set, for those that are known; none if the run was not compared.

    Raises:
        BadInputError: If the file is damaged.
    """
    path = run / RESULTS_FILE
    if not path.is_file():
        return {}
    content = parse_json(path.read_bytes(), path)
    found = {}
    for name, score in tuned.items():
        before, after = (entry_of(content, key, name, path) for key in (UNTOUCHED, TUNED))
        own = {key: getattr(score, key) for key in (*SAME_QUESTIONS, "raw")}
        if before is None or after is None or any(after.get(key) != value for key, value in own.items()):
            continue
        if any(before.get(key) != own[key] for key in SAME_QUESTIONS):
            continue
        value, raw = before.get("value"), before.get("raw")
        if not isinstance(value, int | float) or not isinstance(raw, int | float):
            raise damaged(path)
        found[name] = replace(score, value=float(value), raw=float(raw))
    return found


def entry_of(content: Any, key: str, name: str, path: Path) -> dict[str, Any] | None:  # noqa: ANN401  (JSON)
    """Returns a set's score as it was kept; None if the set was not compared."""
    scores = content.get(key) if isinstance(content, dict) else None
    if not isinstance(scores, dict) or not isinstance(scores.get(name, {}), dict):
        raise damaged(path)
    return scores.get(name)


def damaged(path: Path) -> BadInputError:
    """Returns the error about a file that ``m2pt train`` did not write."""
    return BadInputError(
        "no results of a comparison", where=str(path), expected="scores by set, frozen and tuned", hint="m2pt train"
    )
