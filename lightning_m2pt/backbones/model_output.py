"""What a forward pass of a backbone returns."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ModelOutput:
    """What a forward pass of a backbone returns; the rows of textual prompts are taken out again.

    Attributes:
        hidden_states: (B, S, D) after the language model's final norm, in its dtype; S rows once the image's rows
            stand in the placeholder's place.
        labels: (B, S) int64, aligned with ``hidden_states`` (not shifted).
        spans: (B, S) int64, the ``Span`` of every row.
    """

    hidden_states: Tensor
    labels: Tensor
    spans: Tensor
