"""Every number of an alignment that its experiment file does not have, written once."""

from dataclasses import dataclass, replace
from pathlib import Path

ALIGNMENT_VERSION = 1
"""Raise this when code of the recipe changes what it trains."""
ROOM = Path(__file__).parent


@dataclass(frozen=True)
class AlignmentSettings:
    """The recipe of one projector; how it is trained stands in the experiment file of its name.

    Attributes:
        name: Of the pair, of the experiment file and of the folder that is written.
        seed: Decides pictures, captions, the projector's first numbers and the order of the samples.
        pictures: Trained on once each.
        unseen: Pictures of the gates.
        start_unseen: Of these, how many the untrained projector captions: it says nothing until the limit on tokens.
        start_deviation: Standard deviation of the projector's first weights; its bias begins with zeros.
        batch: Pictures of the gates that run together.
        caption_tokens: Share of caption tokens that has to be right, each behind the right ones.
        whole_captions: Share of captions that has to be right as a whole, decoded greedily.
    """

    name: str
    seed: int = 0
    pictures: int = 16_000
    unseen: int = 400
    start_unseen: int = 64
    start_deviation: float = 0.02
    batch: int = 50
    caption_tokens: float = 0.93
    whole_captions: float = 0.30

    @property
    def experiment_file(self) -> Path:
        """The experiment that is run."""
        return ROOM / f"{self.name}.yaml"

    def shortened(self) -> "AlignmentSettings":
        """Returns the recipe on few pictures, a minute or two: does it still do the same?"""
        return replace(self, pictures=160, unseen=16, start_unseen=4)


ALIGNMENTS = {"smollm2_dinov2": AlignmentSettings("smollm2_dinov2")}
"""The recipes by the names of their folders."""
