"""What chose the adapter that was evaluated: a sentence below every table of a run that something was chosen in."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lightning_m2pt.metrics.predictions import ADAPTER_CHOSEN
from lightning_m2pt.runs.evaluated import Group
from lightning_m2pt.storage.run_record import CHOSEN_BY_SETS
from lightning_m2pt.visible_text import counted

SCORE = "score/"


def selection_notes(
    runs: str, headers: Sequence[Mapping[str, Any]], record: Mapping[str, Any] = MappingProxyType({})
) -> list[str]:
    """Returns of which step an adapter is that is not the last, and which evaluation sets have chosen something.

    Args:
        runs: What the runs are called.
        headers: The headers of their prediction files.
        record: What one of their ``run.json`` says.
    """
    chosen = [header[ADAPTER_CHOSEN] for header in headers if isinstance(header.get(ADAPTER_CHOSEN), dict)]
    notes = [f"{runs}: {chosen_text(each)}" for each in chosen]
    recorded = record.get(CHOSEN_BY_SETS)
    sets = {str(name) for name in recorded} if isinstance(recorded, list) else set()
    sets |= {by.removeprefix(SCORE) for each in chosen if (by := str(each.get("by"))).startswith(SCORE)}
    if sets:
        notes.append(
            f"{runs}: chosen by the score on {counted(sorted(sets))}, which an evaluation set is not for: "
            "that score is no held-out one"
        )
    return list(dict.fromkeys(notes))


def chosen_notes(groups: Sequence[Group]) -> list[str]:
    """Returns what chose the adapters that were evaluated, where they are not of a last step."""
    return [
        note
        for group in groups
        for run in group.runs
        for note in selection_notes(
            f"{group.name}, seed {run.seed}" if len(group.runs) > 1 else group.name,
            [one.answered.header for one in run.sets.values()],
            run.record,
        )
    ]


def chosen_text(chosen: Mapping[str, Any]) -> str:
    """Returns of which step an adapter is and what chose it, as ``adapter of step 120 of 300, best val/loss``."""
    step, steps, by = (f"{chosen.get(key)!s:.60}" for key in ("step", "steps", "by"))
    return f"adapter of step {step} of {steps}, best {by}"
