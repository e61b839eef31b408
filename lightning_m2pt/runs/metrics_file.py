"""Reading a run's ``metrics.csv``, which a kill, a full disk or an editor may have harmed."""

import csv
from pathlib import Path

from lightning_m2pt.errors import BadInputError

METRICS_FILE = "metrics.csv"
STEP = "step"
"""The column that counts optimizer steps."""


def read_metrics(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Returns (``FILE:LINE``, row) of a run's metrics; none if there is no such file.

    A last row that was cut off, as a kill leaves it, is passed over.

    Raises:
        BadInputError: If it is no UTF-8 text or no table, naming file and line.
    """
    if not path.is_file():
        return []
    rows = []
    cut_off = ""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        try:
            for row in reader:
                if cut_off:
                    raise BadInputError("the row has not as many cells as the header", where=cut_off)
                where = f"{path}:{reader.line_num}"
                if None in row or None in row.values():
                    cut_off = where
                else:
                    rows.append((where, row))
        except (csv.Error, UnicodeDecodeError) as error:
            raise BadInputError(
                f"this is no table: {error!s:.80}", where=f"{path}:{reader.line_num + 1}", expected="CSV in UTF-8"
            ) from error
    return rows
