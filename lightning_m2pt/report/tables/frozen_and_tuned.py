"""The table at the end of a training: the untouched model, the tuned one and the difference."""

from collections.abc import Mapping, Sequence

import numpy
from rich.markup import escape
from rich.table import Table

from lightning_m2pt.metrics.coverage import without_limit
from lightning_m2pt.metrics.means import (
    MMAVG_LABELS,
    MMAVG_MEMBERS,
    NEVER_A_MEMBER,
    benchmark_mean,
    limited_notes,
)
from lightning_m2pt.metrics.score import Score
from lightning_m2pt.metrics.statistics import Floats, percentile_interval
from lightning_m2pt.report.tables.scores import WIDE, chance_corrected, headline, is_at_chance

IN_NOISE = " ~"
"""Stands behind a difference whose paired interval contains 0."""


def difference_text(difference: float, resampled: Floats | None) -> str:
    """Returns a difference, marked if it is inside the noise; without resamples nothing is known about that."""
    is_noise = resampled is not None and percentile_interval(resampled).holds_zero
    return f"{difference:+.1f}" + (IN_NOISE if is_noise else "")


def members_of(label: str, names: Sequence[str]) -> list[str]:
    """Returns the sets that a mean of this name is over: MME is in none, and what is no member not in MMAvg."""
    counted = [name for name in names if without_limit(name) != NEVER_A_MEMBER]
    return [name for name in counted if label not in MMAVG_LABELS or without_limit(name) in MMAVG_MEMBERS]


def mean_of_sets(resampled: Sequence[Floats]) -> Floats:
    """Returns the mean over sets, resample by resample; sets are drawn independently of each other."""
    fewest = min(map(len, resampled))
    means: Floats = numpy.mean([values[:fewest] for values in resampled], axis=0)
    return means


def corrected(scored: Score) -> float:
    """Returns a score's chance-corrected value."""
    return chance_corrected(scored.value, scored.chance)


def mean(values: Sequence[float]) -> float:
    """Returns the plain mean."""
    return sum(values) / len(values)


def comparison_table(
    frozen: Mapping[str, Score],
    tuned: Mapping[str, Score],
    method: str,
    gains: Mapping[str, Floats] | None = None,
    width: int = WIDE,
) -> Table:
    """Returns the frozen model, the tuned one and the difference, set by set.

    Args:
        frozen: Scores of the untouched model by set.
        tuned: Scores of the run by set.
        method: Name of the method for the header.
        gains: Resampled gains of every set of ``tuned``; with them, differences inside the noise are marked.
        width: Columns of the terminal; a narrow one has no room for how answers were read.
    """
    gains = gains or {}
    shown = Table(caption_justify="left")
    shown.add_column("set")
    columns: tuple[str, ...] = ("frozen", method, "difference", "chance", "n", "unparsed", "yes said")
    columns = columns if width >= WIDE else columns[:-2]
    for column in columns:
        shown.add_column(column, justify="right", no_wrap=True)
    for name, after in tuned.items():
        before = frozen[name]
        label = after.name + ("" if after.maximum == 1.0 else f" ({headline(before)} -> {headline(after)})")
        cells = (
            escape(label),
            f"{before.value:.1f}" + (" *" if is_at_chance(before) else ""),
            f"{after.value:.1f}" + (" *" if is_at_chance(after) else ""),
            difference_text(after.value - before.value, gains.get(name)),
            f"{after.chance:.1f}",
            f"{after.n:,}",
            f"{before.unparsed:,} -> {after.unparsed:,}",
            "" if after.yes_ratio is None else f"{100 * after.yes_ratio:.0f}%",
        )
        shown.add_row(*cells[: 1 + len(columns)])
    shown.add_section()
    values = {name: scored.value for name, scored in tuned.items()}
    members = {scored.name: name for name, scored in tuned.items() if name != NEVER_A_MEMBER}
    if members:
        label, after_mean = benchmark_mean({text: tuned[name].value for text, name in members.items()})
        _, before_mean = benchmark_mean({text: frozen[name].value for text, name in members.items()})
        averaged = [members[text] for text in members_of(label, list(members))]
        gain = mean_of_sets([gains[name] for name in averaged]) if gains else None
        shown.add_row(
            escape(label), f"{before_mean:.1f}", f"{after_mean:.1f}", difference_text(after_mean - before_mean, gain)
        )
    before_mean, after_mean = (mean([corrected(scores[name]) for name in values]) for scores in (frozen, tuned))
    # A point of percent is worth as many corrected points as the room above chance makes of it.
    worth = {name: chance_corrected(scored.chance + 1, scored.chance) for name, scored in tuned.items()}
    gain = mean_of_sets([worth[name] * resampled for name, resampled in gains.items()]) if gains else None
    difference = difference_text(after_mean - before_mean, gain)
    shown.add_row("all sets, chance-corrected", f"{before_mean:.1f}", f"{after_mean:.1f}", difference)
    shown.caption = escape(caption([*frozen.values(), *tuned.values()], bool(gains)))
    return shown


def caption(scores: Sequence[Score], has_gains: bool) -> str:
    """Returns how a table is to be read.

    Args:
        scores: Everything in it.
        has_gains: Whether differences inside the noise are marked.
    """
    marks = ["percent of each set's maximum", "chance: the best constant answer"]
    marks += ["* at chance"] if any(map(is_at_chance, scores)) else []
    marks += [f"{IN_NOISE.strip()} inside the noise (the paired 95% interval contains 0)"] if has_gains else []
    return "\n".join(["; ".join(marks), *limited_notes([("", list(dict.fromkeys(one.name for one in scores)))])])
