"""What a search is told by in the end: a table of losses by budget, and what the written prompt does not beat."""

from collections.abc import Mapping

from rich.table import Table

from lightning_m2pt.prompt_search.state import SearchState

SHARES_SHOWN = (0.25, 0.5, 0.75, 1.0)
"""Shares of the budget at which the table says what was found."""


def curve_table(states: Mapping[str, SearchState], budget: int) -> Table:
    """Returns the least loss of each search at shares of the budget; it fits 80 columns."""
    shown = Table(title=f"least loss within shares of {budget:,} rows")
    shown.add_column("proposer", no_wrap=True)
    for share in SHARES_SHOWN:
        shown.add_column(f"{share:.0%}", justify="right")
    for name in ("prompts", "moves", "read otherwise"):
        shown.add_column(name, justify="right")
    for name, state in states.items():
        losses = [state.best_within(int(share * budget)) for share in SHARES_SHOWN]
        counts = (state.scored, state.moves, state.unread)
        shown.add_row(name, *("-" if loss is None else f"{loss:.4f}" for loss in losses), *map(str, counts))
    return shown


def sentences_about_loss(written: str, states: Mapping[str, SearchState], untouched: float) -> list[str]:
    """Returns what the written prompt does not beat on the searched samples, one sentence each.

    Args:
        written: The proposer whose prompt the file has.
        states: All searches of the record, by their proposers.
        untouched: Loss without a prompt.
    """
    found = states[written].best_loss
    sentences = []
    if found >= untouched:
        sentences.append(f"this prompt is no better than none: {found:.4f} against {untouched:.4f}")
    for name, state in states.items():
        if state.best_loss < found:
            sentences.append(f"{name} found a better one than {written}: {state.best_loss:.4f}")
    return sentences
