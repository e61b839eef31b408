"""The tables of the comparison: rows of words, what order and another backbone do to them, what gradients promise."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.learning.prompt_words.rows import LOSSES, RIGHT
from benchmarks.learning.prompt_words.setting import CARRIED, DRAWN, PROPOSERS, SETS, SHUFFLED, SOFT, UNTOUCHED
from benchmarks.learning.prompt_words.soft import SWAPS
from benchmarks.report.sweep_tables import SETS as SET_LABELS
from lightning_m2pt.report.tables.formats import Column, ReportTable

Content = Mapping[str, Any]
SHARES = (0.25, 0.5, 1.0)
"""Shares of the budget that the table of searches shows."""


def interval_text(gain: Sequence[float], digits: int, scale: float = 1.0) -> str:
    """Returns a difference with its interval."""
    value, low, high = (f"{scale * each:+.{digits}f}" for each in gain)
    return f"{value} ({low} to {high})"


def tables_of(content: Content) -> list[ReportTable]:
    """Returns two tables for each backbone."""
    tables = []
    for name, part in content["backbones"].items():
        tables += [search_table(name, part, content["settings"]), value_table(name, part)]
    return tables


def search_table(name: str, part: Content, settings: Content) -> ReportTable:
    """Returns the least loss of each search at shares of the budget, the mean over seeds, on what is searched on."""
    rows, records = [], []
    rows_of = part["rows"]
    for search in (*PROPOSERS, SOFT):
        curves = part["curves"][search]
        places = [
            [budget <= share * settings["budget"] for budget in part["budgets"]].count(True) - 1 for share in SHARES
        ]
        losses = [mean_or_none([curve[place] for curve in curves]) for place in places]
        ended = rows_of[search]["searched_loss"]
        counts = part["searches"].get(search)
        rows.append(
            [
                search,
                *("-" if loss is None else f"{loss:.3f}" for loss in losses),
                f"{min(ended):.3f} to {max(ended):.3f}",
                f"{statistics.fmean(counts['prompts']):,.0f}" if counts else "",
            ]
        )
        records.append({"backbone": name, "search": search, "losses": losses, "seeds": ended})
    columns = [Column("search")]
    columns += [Column(f"{share:.0%} of the budget", is_number=True) for share in SHARES]
    columns += [Column("seeds, lowest to highest", is_number=True), Column("prompts scored", is_number=True)]
    untouched = statistics.fmean(rows_of[UNTOUCHED]["searched_loss"])
    drawn = statistics.fmean(rows_of[DRAWN]["searched_loss"])
    notes = [
        f"least loss per supervised token on the {settings['searched']} conversations that are searched on, mean over "
        f"{seeds_text(part)}; without a prompt {untouched:.3f}, with random words {drawn:.3f}",
        f"budget: {settings['budget']:,} rows of the language model each; a backward pass counts as two forward ones",
    ]
    return ReportTable(f"{name}: what the searches find", columns, rows, records, notes)


def seeds_text(part: Content) -> str:
    """Returns how many seeds there are."""
    number = len(part["seeds"])
    return f"{number} seed" + "s" * (number > 1)


def mean_or_none(values: Sequence[float | None]) -> float | None:
    """Returns the mean, or None if one is missing."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def value_table(name: str, part: Content) -> ReportTable:
    """Returns what the rows are worth on other pictures and on other sets."""
    rows, records = [], []
    for row, found in part["rows"].items():
        has_base = row != UNTOUCHED
        cells = [
            row,
            f"{statistics.fmean(found['searched_loss']):.3f}",
            f"{found['loss']:.3f}",
            interval_text(found[f"{LOSSES}_to_none"], 3) if has_base else "",
            f"{found['accuracy']:.1f}",
            interval_text(found[f"{RIGHT}_to_none"], 1, 100) if has_base else "",
        ]
        for each in SETS:
            of_set = found["sets"].get(each)
            if of_set is None:
                cells.append("")
            elif has_base:
                cells.append(
                    f"{of_set['score']:.1f}, {interval_text([of_set[key] for key in ('gain', 'low', 'high')], 1)}"
                )
            else:
                cells.append(f"{of_set['score']:.1f}")
        rows.append(cells)
        records.append({"backbone": name, "row": row, **found})
    titles = ("loss, searched on", "loss, held out", "to no prompt", "% right, held out", "to no prompt")
    columns = [Column("words"), *(Column(title, is_number=True) for title in titles)]
    columns += [Column(f"{SET_LABELS[each]}, to no prompt", is_number=True) for each in SETS]
    return ReportTable(f"{name}: what they are worth elsewhere", columns, rows, records, notes_of(part))


def notes_of(part: Content) -> list[str]:
    """Returns what stands below the table of values."""
    rows = part["rows"]
    compared = [pair for row in rows.values() for pair in row if "_to_" in pair] + [
        each for name, row in rows.items() if name != UNTOUCHED for each in row["sets"]
    ]
    correlations = ", ".join(
        f"{each['spearman']:.2f} ({each['low']:.2f} to {each['high']:.2f})" for each in part[SWAPS]
    )
    within = statistics.fmean(each["best_within"] for each in part[SWAPS])
    notes = [
        f"{seeds_text(part)}; held out are {part['held_out']} conversations about pictures of which none is searched "
        "on; intervals of 95% over pictures and seeds, paired; "
        f"{len(compared)} of them here and in the stored file, of which one in twenty would leave out zero by chance",
        f"best of the searches: {', '.join(part['best_of'])}; shuffled against it, held out: loss "
        f"{interval_text(rows[SHUFFLED][f'{LOSSES}_to_best'], 3)}, points right "
        f"{interval_text(rows[SHUFFLED][f'{RIGHT}_to_best'], 1, 100)}",
        f"rank correlation of the change that the gradient promises with the true one, seed by seed: {correlations}; "
        f"the best word of a place is among the most promising in {within:.0%} of the places",
    ]
    if CARRIED in rows:
        notes.append(
            "the other backbone's best against random words, held out: loss "
            f"{interval_text(rows[CARRIED][f'{LOSSES}_to_drawn'], 3)}, points right "
            f"{interval_text(rows[CARRIED][f'{RIGHT}_to_drawn'], 1, 100)}"
        )
    return notes
