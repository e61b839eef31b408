"""What the runs cost: minutes, steps, memory and trained numbers, as their records say."""

from collections.abc import Sequence
from typing import Any

from experiments.evaluated_runs import Group
from experiments.report_curves import peak_memory
from experiments.table_formats import Column, ReportTable
from lightning_m2pt.run_record import MADE_WITH

COMPLETED, TRAINABLE = "completed", "trainable"
BYTES = 1024**3


def cost_table(groups: Sequence[Group]) -> ReportTable:
    """Returns one row for every tuned group; empty cells are not recorded."""
    rows: list[tuple[str, ...]] = []
    records, notes = [], []
    for group in (one for one in groups if any(run.is_tuned for run in one.runs)):
        minutes = numbers(group, COMPLETED, "seconds", 60)
        steps = numbers(group, COMPLETED, "optimizer_steps")
        trained = numbers(group, TRAINABLE, "trained")
        percent = numbers(group, TRAINABLE, "percent")
        memory = [found / BYTES for run in group.runs if (found := peak_memory(run.home)) is not None]
        texts = (
            range_text(minutes, ".1f"),
            range_text(steps, ".0f"),
            range_text(trained, ",.0f"),
            range_text(percent, "g"),
            range_text(memory, ".2f"),
        )
        rows.append((group.name, str(len(group.runs)), *texts))
        records.append(
            {
                "method": group.name,
                "runs": len(group.runs),
                "minutes": minutes,
                "optimizer_steps": steps,
                "trained_numbers": trained,
                "trained_percent": percent,
                "peak_gpu_memory_gib": memory,
            }
        )
        resumed = sum(len(run.record.get(MADE_WITH) or []) > 1 for run in group.runs)
        if resumed:
            notes.append(
                f"{group.name}: {resumed} run(s) started more than once; minutes may be of the last start alone"
            )
    titles = [Column("method")]
    titles += [
        Column(title, is_number=True)
        for title in ("runs", "minutes of tuning", "steps", "trained numbers", "trained %", "GPU memory, GiB")
    ]
    if not any(record["peak_gpu_memory_gib"] for record in records):
        rows, titles = [row[:-1] for row in rows], titles[:-1]
        notes.append("memory was not recorded")
    notes.insert(0, "minutes are of the clock, lowest to highest run: what else the machine did is in them")
    return ReportTable("", titles, rows, records, notes)


def numbers(group: Group, section: str, key: str, divisor: float = 1) -> list[float]:
    """Returns what the runs' records hold under a key of a section, where they do."""
    found: list[Any] = [(run.record.get(section) or {}).get(key) for run in group.runs]
    return [value / divisor for value in found if isinstance(value, int | float)]


def range_text(values: Sequence[float], form: str) -> str:
    """Returns a number, or the lowest and the highest."""
    texts = [format(value, form) for value in (min(values), max(values))] if values else [""]
    return texts[0] if len(set(texts)) == 1 else f"{texts[0]} to {texts[-1]}"
