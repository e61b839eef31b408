"""The table of a sweep's transfers for people, and as files: Markdown, and JSON with all digits."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.prompt_transfer.matrix import NOT_STATED, Direction, Estimate
from experiments.sweep.transfer_section import TransferPlan
from lightning_m2pt.report.tables.formats import Column, ReportTable, markdown
from lightning_m2pt.system.atomic_files import write_atomically

MATRIX_FILE, MATRIX_TABLE = "transfers.json", "transfers.md"
FORMAT = 1
LEVEL = 0.05
MOST_NAMED = 6
"""Missing transfers are named up to this number, and counted."""
NUMBERS = (
    "untouched",
    "with prompt",
    "gain at home",
    "gain on target",
    "Holm p",
    "ceiling",
    "share of ceiling",
    "lost by clipping",
    "lost by 8 bits",
    "feature distance",
)


def matrix_table(name: str, rows: Sequence[Direction]) -> ReportTable:
    """Returns the table.

    Args:
        name: The sweep's.
        rows: As ``matrix.directions`` returns them.
    """
    columns = [Column("set"), Column("trained on > used on"), Column("prompt"), Column("seeds")]
    columns += [Column(title, is_number=True) for title in NUMBERS]
    return ReportTable(
        f"transfers of {name}",
        columns,
        [texts_of(row) for row in rows],
        [row.record() for row in rows],
        notes_of(rows),
    )


def texts_of(row: Direction) -> list[str]:
    """Returns one row's texts."""
    p_value = "" if row.adjusted_p is None else f"{row.adjusted_p:.3f}" + ("*" if row.adjusted_p < LEVEL else "")
    share = "" if row.share is None else f"{row.share.value:.2f} ({row.share.low:.2f} to {row.share.high:.2f})"
    return [
        row.set,
        f"{row.source} > {row.target}",
        row.row,
        f"{row.present} of {row.planned}",
        "missing" if row.untouched is None else f"{row.untouched:.1f}",
        "" if row.score is None else f"{row.score:.1f}",
        with_interval(row.white_box),
        with_interval(row.gain),
        p_value,
        with_interval(row.ceiling),
        "not stated" if row.ceiling is not None and row.share is None else share,
        with_interval(row.clip_loss),
        with_interval(row.eight_bits_loss),
        "" if row.feature_distance is None else f"{row.feature_distance:.3f}",
    ]


def with_interval(estimate: Estimate | None) -> str:
    """Returns a signed number with its interval; nothing for nothing."""
    if estimate is None:
        return ""
    return f"{estimate.value:+.1f} ({estimate.low:+.1f} to {estimate.high:+.1f})"


def notes_of(rows: Sequence[Direction]) -> list[str]:
    """Returns what has to be known to read the table."""
    compared = sum(row.adjusted_p is not None for row in rows)
    notes = [
        "Points of the set's maximum over the untouched model on the same questions: means over the seeds that are "
        "there, with paired 95% intervals over pictures and seeds (of a single seed: over pictures alone).",
        "At home: on the base the prompt was trained on. Ceiling: the same row's prompts trained on the target. Share: "
        f"gain on the target divided by it; {NOT_STATED}.",
        f"Holm p: of {compared} gains on a target, adjusted together; * below {LEVEL:g}.",
        "Lost: by clipping to 0..1 on the target, and by rounding to 256 levels as well, paired by seed.",
    ]
    missing = list(dict.fromkeys(title for row in rows for title in row.missing))
    if missing:
        more = f", and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        notes.append(f"{len(missing)} transfers are missing: {'; '.join(missing[:MOST_NAMED])}{more}.")
    return notes


def write_matrix(folder: Path, plan: TransferPlan, table: ReportTable, rates: Mapping[str, Any]) -> Path:
    """Writes the table, and its records with all digits, which are what pages are made from.

    Args:
        folder: The sweep's.
        plan: Of the sweep.
        table: As ``matrix_table`` returns it.
        rates: Searched rates by label, where they are not those of the files.

    Returns:
        The file with all digits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / MATRIX_TABLE, markdown([table]).encode())
    content = {
        "format": FORMAT,
        "sets": list(plan.sets),
        "bases": {name: path.stem for name, path in plan.bases.items()},
        "rows": list(plan.rows),
        "seeds": plan.seeds,
        "answer": plan.answer,
        "searched_rates": dict(rates),
        "notes": list(table.notes),
        "directions": list(table.records),
    }
    path = folder / MATRIX_FILE
    write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    return path
