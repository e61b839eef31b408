"""Answers that come piece by piece; the base is held for a piece at a time, and others have their turn in between."""

from collections.abc import Iterator
from dataclasses import dataclass

from lightning_m2pt.answering.kept_rows import KeptRows, read_conversation
from lightning_m2pt.answering.text_pieces import text_pieces
from lightning_m2pt.answering.token_stream import TokenStream
from lightning_m2pt.application.shared_base import SharedBase, Tuned
from lightning_m2pt.inputs.batch import Batch

MAX_NEW_TOKENS = 64
"""Of an answer, where nobody says another limit."""


@dataclass
class LastRead:
    """The conversation that was read last: what the next one has in common with it is not run again.

    Attributes:
        kept: Where it stands, on the base's device; None before the first.
    """

    kept: KeptRows | None = None


def streamed_answer(base: SharedBase, tuned: Tuned, batch: Batch, last: LastRead, max_new_tokens: int) -> Iterator[str]:
    """Yields the greedy answer to one conversation in pieces, none of them empty.

    Args:
        base: The base.
        tuned: Who answers, whatever is used in between.
        batch: The conversation without its last answer.
        last: What was read before; it is brought up to date, also where the answer is not read to its end.
        max_new_tokens: Limit on the answer's tokens, the end token included.

    Raises:
        BadInputError: If the language model has no position for it.
        DivergedError: If the model's numbers are not finite.
    """
    with base.held(tuned) as backbone:
        ends = base.processor.bound(tuned.template).end_token_ids
        stream = TokenStream(backbone, read_conversation(backbone, batch, last.kept), max_new_tokens, ends)
    pieces = text_pieces(base.processor, stream)
    try:
        while True:
            with base.held(tuned):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece
    finally:
        last.kept = stream.kept
