"""What the runs cost: minutes, steps, memory and trained numbers, as their records say."""

from collections.abc import Sequence
from itertools import compress
from typing import Any

from lightning_m2pt.report.page.curves import logged_gpu_memory
from lightning_m2pt.report.tables.formats import Column, ReportTable
from lightning_m2pt.runs.evaluated import EvaluatedRun, Group
from lightning_m2pt.storage.run_record import COMPLETED, MADE_WITH, TRAINABLE

MEMORY, PROCESS, GPU = "peak_memory_bytes", "process", "gpu"
"""Of ``fit``, whose import would load torch; a test compares them."""
GIB = 1024**3
MEMORY_TITLES = ("peak memory, GiB", "peak GPU memory, GiB")
MEMORY_NOTE = "peak memory: what was resident of the main process, libraries and data included; GPU: of its tensors"


def cost_table(groups: Sequence[Group]) -> ReportTable:
    """Returns one row for every tuned group; empty cells are not recorded."""
    rows: list[tuple[str, ...]] = []
    records, notes = [], []
    for group in (one for one in groups if any(run.is_tuned for run in one.runs)):
        resumed = [run for run in group.runs if len(run.record.get(MADE_WITH) or []) > 1]
        in_one_go = Group(group.name, [run for run in group.runs if run not in resumed])
        minutes = recorded_numbers(in_one_go, COMPLETED, "seconds", 60)
        steps = recorded_numbers(group, COMPLETED, "optimizer_steps")
        trained = recorded_numbers(group, TRAINABLE, "trained")
        percent = recorded_numbers(group, TRAINABLE, "percent")
        memory = [memory_of(run) for run in group.runs]
        process, gpu = ([found[place] / GIB for found in memory if place in found] for place in (PROCESS, GPU))
        texts = (
            range_text(minutes, ".1f"),
            range_text(steps, ".0f"),
            range_text(trained, ",.0f"),
            range_text(percent, "g"),
            range_text(process, ".2f"),
            range_text(gpu, ".2f"),
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
                "peak_process_memory_gib": process,
                "peak_gpu_memory_gib": gpu,
            }
        )
        if resumed:
            notes.append(
                f"{group.name}: {len(resumed)} of {len(group.runs)} runs started more than once; their minutes are "
                "left out, and their memory is of the last start"
            )
    titles = ["method", "runs", "minutes of tuning", "steps", "trained numbers", "trained %", *MEMORY_TITLES]
    shown = [title not in MEMORY_TITLES or any(row[place] for row in rows) for place, title in enumerate(titles)]
    columns = [Column(title, is_number=place > 0) for place, title in enumerate(titles) if shown[place]]
    rows = [tuple(compress(row, shown)) for row in rows]
    if not set(MEMORY_TITLES) & {column.title for column in columns}:
        notes.append("memory was not recorded")
    else:
        notes.insert(0, MEMORY_NOTE)
    notes.insert(0, "minutes are of the clock, lowest to highest run: what else the machine did is in them")
    return ReportTable("", columns, rows, records, notes)


def memory_of(run: EvaluatedRun) -> dict[str, float]:
    """Returns the most memory that tuning took, in bytes by place, as far as a run recorded it."""
    found: dict[str, float] = (run.record.get(COMPLETED) or {}).get(MEMORY) or {}
    logged = logged_gpu_memory(run.home)
    return found if GPU in found or logged is None else {**found, GPU: logged}


def recorded_numbers(group: Group, section: str, key: str, divisor: float = 1) -> list[float]:
    """Returns what the runs' records hold under a key of a section, where they do."""
    found: list[Any] = [(run.record.get(section) or {}).get(key) for run in group.runs]
    return [value / divisor for value in found if isinstance(value, int | float)]


def range_text(values: Sequence[float], form: str) -> str:
    """Returns a number, or the lowest and the highest."""
    texts = [format(value, form) for value in (min(values), max(values))] if values else [""]
    return texts[0] if len(set(texts)) == 1 else f"{texts[0]} to {texts[-1]}"
