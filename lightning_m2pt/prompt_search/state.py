"""Where a search stands: all that the next round depends on, as plain values."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_m2pt.prompt_search.prompt_texts import Prompt


@dataclass(frozen=True)
class SearchState:
    """Where a search stands between two rounds.

    Attributes:
        current: The prompt that the next round starts from.
        current_loss: Its loss per supervised token.
        best: The prompt with the least loss so far.
        best_loss: Its loss.
        rows: Rows that were run so far.
        round: Rounds so far.
        scored: Prompts scored so far.
        unread: Prompts that were proposed and are read otherwise than they are written.
        moves: How often the current prompt became another.
        unchanged: Rounds since the current prompt became another.
        empty: Rounds one after another in which nothing could be scored.
        memory: What the proposer keeps from round to round.
        curve: Rows and the least loss, wherever it fell.
        ended: Why the search is over; empty while it is not.
    """

    current: Prompt
    current_loss: float
    best: Prompt
    best_loss: float
    rows: int
    round: int = 0
    scored: int = 1
    unread: int = 0
    moves: int = 0
    unchanged: int = 0
    empty: int = 0
    memory: dict[str, Any] = field(default_factory=dict)
    curve: tuple[tuple[int, float], ...] = ()
    ended: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "SearchState":
        """Returns what ``to_json`` wrote.

        Raises:
            KeyError, TypeError, ValueError: If the values are no state.
        """
        lists = {
            "current": tuple(map(int, values["current"])),
            "best": tuple(map(int, values["best"])),
            "curve": tuple((int(rows), float(loss)) for rows, loss in values["curve"]),
        }
        state = cls(**{**values, **lists})
        counts = (state.rows, state.round, state.scored, state.unread, state.moves, state.unchanged, state.empty)
        losses = (state.current_loss, state.best_loss)
        if not all(type(count) is int and count >= 0 for count in counts) or not state.current or not state.best:
            raise ValueError("a count is no whole number of 0 or more, or a prompt is empty")
        if not all(type(loss) in (int, float) for loss in losses) or type(state.ended) is not str:
            raise ValueError("a loss is no number, or the end no text")
        if type(state.memory) is not dict:
            raise ValueError("the memory is no mapping")
        return state

    def best_within(self, rows: int) -> float | None:
        """Returns the least loss that was found within so many rows; None if nothing was scored in them."""
        found = [loss for ran, loss in self.curve if ran <= rows]
        return min(found) if found else None
