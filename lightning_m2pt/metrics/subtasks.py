"""Numbers by subtask, where the questions of a set have some."""

from collections.abc import Callable, Sequence

from lightning_m2pt.metrics.rule import Predictions, Table

SUBTASK = "subtask"


def rows_of_subtasks(predictions: Predictions, row_of: Callable[[Sequence[int]], dict[str, float]]) -> Table:
    """Returns a row for every subtask, ``subtask NAME``; none where no question has one.

    Args:
        predictions: A prediction file's lines.
        row_of: From the positions of some predictions to their numbers.
    """
    positions: dict[str, list[int]] = {}
    for position, row in enumerate(predictions):
        positions.setdefault(row["subtask"], []).append(position)
    return {f"{SUBTASK} {name}": row_of(positions[name]) for name in sorted(positions) if name}
