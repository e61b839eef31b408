"""What a search will cost, known before weights load."""

from dataclasses import dataclass

from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.prompt_search.scorer import PromptScorer

RATES = {"cpu": 3e10, "cuda": 2e14, "mps": 2e12}
"""Operations a second that are assumed of a device: right to a factor of a few."""
MOST_HOURS = 1.0
"""What a search may be expected to take without consent."""


@dataclass(frozen=True)
class SearchCost:
    """What a search costs.

    Attributes:
        rows: Rows of the language model.
        operations: Floating point operations, about: two for each weight of the decoder's layers and row.
        hours: At the rate that is assumed of the device.
    """

    rows: int
    operations: float
    hours: float

    def sentence(self) -> str:
        """Returns it in words."""
        time = f"{self.hours:.1f} hours" if self.hours >= 1 else f"{60 * self.hours:.1f} minutes"
        return f"at most {self.rows:,} rows of the language model, {self.operations:.1e} operations, about {time}"


def search_cost(shape: BackboneShape, rows: int, device: str) -> SearchCost:
    """Returns what so many rows cost on a kind of device."""
    operations = 2.0 * 12 * shape.text_layers * shape.text_width**2 * rows
    return SearchCost(rows, operations, operations / RATES.get(device, RATES["cpu"]) / 3600)


def refuse_without_consent(cost: SearchCost, consent: bool) -> None:
    """Refuses a search that is expected to take long.

    Raises:
        BadInputError: If it is, and nobody said that it may.
    """
    if cost.hours > MOST_HOURS and not consent:
        raise BadInputError(
            f"the search takes {cost.sentence()}",
            where="command line: --budget",
            expected=f"about {MOST_HOURS:.0f} hour at most, or --yes",
        )


def refuse_small_budget(scorer: PromptScorer, gradients: int, budget: int) -> None:
    """Refuses a budget that does not pay for a first round.

    Raises:
        BadInputError: If it does not.
    """
    start = scorer.rows_in_front + scorer.rows_of_prompt
    least = start + gradients * scorer.rows_of_gradient + start
    if budget < least:
        raise BadInputError(
            f"{budget:,} rows do not pay for one round",
            where="command line: --budget",
            expected=f"{least:,} or more: the start, the gradients of a round and one prompt on all samples",
        )
