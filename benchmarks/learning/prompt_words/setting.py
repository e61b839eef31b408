"""What the comparison of searches is made of, and how much of everything."""

from dataclasses import asdict, dataclass
from typing import Any

from lightning_m2pt.prompt_search.placing import Position

BACKBONES = ("testbed", "testbed_patch12")
PROPOSERS = ("random", "exhaustive", "autoprompt", "gcg", "beam", "pez")
UNTOUCHED, DRAWN, WRITTEN = "no prompt", "random words", "hand-written"
SHUFFLED, CARRIED, SOFT = "best, shuffled", "other base's best", "soft prompt"
ROWS = (UNTOUCHED, DRAWN, WRITTEN, *PROPOSERS, SHUFFLED, CARRIED, SOFT)
"""All rows of the table, in its order."""
SETS = ("pope", "cifar10")
"""Sets that nothing was tuned or searched on."""
TEXTS = "testbed"
"""The list of texts that people wrote."""


@dataclass(frozen=True)
class Setting:
    """Sizes; whatever is stored was made with all of them alike.

    Attributes:
        position: Where prompts stand.
        length: Words of a searched prompt.
        searched: Conversations that prompts are searched on, of the validation split.
        held_out: Conversations of other pictures of that split, the same for all seeds.
        budget: Rows of the language model that each search may run.
        width: Prompts a round of those that draw.
        top_k: Words tried for a place by those that go by gradients.
        beam: Prompts that a beam keeps.
        drawn: Prompts of random words, of which the mean is shown.
        orders: Other orders of the best words, of which the mean is shown.
        swaps: Single swaps whose changes are compared with what the gradient promises.
        questions: Questions of each set; 0 leaves the sets out.
    """

    position: Position = "behind_question"
    length: int = 4
    searched: int = 64
    held_out: int = 256
    budget: int = 600_000
    width: int = 64
    top_k: int = 16
    beam: int = 4
    drawn: int = 5
    orders: int = 8
    swaps: int = 300
    questions: int = 400

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain values."""
        return asdict(self)
