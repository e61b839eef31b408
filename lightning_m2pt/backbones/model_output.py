"""What a forward pass of a backbone returns, and where its answers stand while they are decoded."""

from dataclasses import dataclass

from torch import Tensor

from lightning_m2pt.prompts.past_rows import PastRows


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


@dataclass
class DecodingState:
    """Where the answers to Q questions about I pictures stand; read one by one, every question has its own picture.

    Attributes:
        past: What the decoder keeps of I pictures and their questions, one sample a picture.
        segment_ids: (I, K) int64, which of its picture's questions each past row belongs to; ``SHARED_SEGMENT`` or
            ``PADDING_SEGMENT``.
        pictures: (Q,) int64 the sample of each question.
        slots: (Q,) int64 the number of each question within its picture.
        next_position: (Q,) int64 rotary position of each question's next token.
        logits: (Q, V) for each question's next token.
    """

    past: PastRows
    segment_ids: Tensor
    pictures: Tensor
    slots: Tensor
    next_position: Tensor
    logits: Tensor
