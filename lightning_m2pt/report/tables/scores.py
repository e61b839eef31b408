"""The table of scores; without numpy, so that scoring starts at once."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from lightning_m2pt.metrics.score import Score

SMALL_MAXIMUM = 10.0
WIDE = 100
"""Columns from which on a terminal shows a whole table."""
AT_CHANCE_ERRORS = 2.0
"""A score less than this many standard errors above the chance line is said to be not above it."""
LEAST_P = 1e-4
"""Smaller p values are shown as less than this."""


def headline(scored: Score) -> str:
    """Returns a score as its set is usually quoted: MME in points of its maximum, the others in percent."""
    if scored.maximum == 1.0:
        return f"{scored.value:.1f}"
    return f"{scored.raw:.{digits(scored)}f} / {scored.maximum:.0f}"


def digits(scored: Score) -> int:
    """Returns how many digits behind the point a number has: points of MME none, CIDEr (0 to 10) three."""
    return 0 if scored.maximum > SMALL_MAXIMUM else 3


def chance(scored: Score) -> str:
    """Returns the chance line in the same unit as the headline."""
    if scored.maximum == 1.0:
        return f"{scored.chance:.1f}"
    return f"{scored.chance * scored.maximum / 100:.{digits(scored)}f}"


def is_at_chance(scored: Score) -> bool:
    """Tells whether a score is not clearly above the best constant answer (binomial standard error over n)."""
    share = scored.chance / 100
    error: float = 100 * (share * (1 - share) / scored.n) ** 0.5
    return scored.value < scored.chance + AT_CHANCE_ERRORS * error


def chance_corrected(value: float, chance_line: float) -> float:
    """Returns (score - chance) / (maximum - chance) in percent: 0 is the best constant answer, 100 is perfect.

    A set on which a constant answer is perfect tells nothing: 0.
    """
    return 100 * (value - chance_line) / (100 - chance_line) if chance_line < 100 else 0.0


def score_table(scores: Sequence[Score], width: int = WIDE) -> Table:
    """Returns one row per set and rule.

    Args:
        scores: The scores.
        width: Columns of the terminal; a narrow one has room for the numbers that cannot be read off the others.
    """
    shown = Table()
    shown.add_column("set", overflow="fold")
    shown.add_column("rule", overflow="fold")  # a rule whose name is cut may be another
    columns = ["score", "% of max.", "chance", "n", "unparsed", "yes said"]
    left_out = {"% of max.", "yes said"} if width < WIDE else set()
    for column in columns:
        if column not in left_out:
            shown.add_column(column, justify="right")
    for scored in scores:
        cells = (
            headline(scored),
            f"{scored.value:.1f}",
            chance(scored) + (" (not above)" if is_at_chance(scored) else ""),
            f"{scored.n:,}",
            f"{scored.unparsed:,}",
            "" if scored.yes_ratio is None else f"{100 * scored.yes_ratio:.0f}%",
        )
        kept = [cell for column, cell in zip(columns, cells, strict=True) if column not in left_out]
        shown.add_row(escape(f"{scored.name} ({scored.headline})"), scored.rule, *kept)
    return shown


def p_text(p_value: float | None) -> str:
    """Returns a p value with four decimals; a dash where the test does not apply."""
    if p_value is None:
        return "-"
    return f"< {LEAST_P:g}" if p_value < LEAST_P else f"{p_value:.4f}"
