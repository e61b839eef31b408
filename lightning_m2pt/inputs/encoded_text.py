"""One conversation as tokens, and what every token is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from lightning_m2pt.inputs.batch import IGNORED_LABEL, Span
from lightning_m2pt.inputs.templates import Piece


@dataclass(frozen=True)
class EncodedText:
    """One conversation as tokens, without its images.

    Attributes:
        input_ids: (T,) int32, with an ``IMAGE_TOKEN_ID`` where each image goes.
        spans: (T,) int8, the ``Span`` of every token.
    """

    input_ids: numpy.ndarray
    spans: numpy.ndarray

    @property
    def labels(self) -> numpy.ndarray:
        """(T,) int32: the token ids of answers and their end tokens, ``IGNORED_LABEL`` elsewhere."""
        return numpy.where(self.spans == Span.ANSWER, self.input_ids, numpy.int32(IGNORED_LABEL))

    @property
    def supervised_tokens(self) -> int:
        """Number of labels that are not ignored."""
        return int((self.spans == Span.ANSWER).sum())

    def __len__(self) -> int:
        """Returns the number of tokens, the image counted as one."""
        return len(self.input_ids)


def spans_of_tokens(pieces: Sequence[Piece], offsets: Sequence[tuple[int, int]]) -> numpy.ndarray:
    """Returns the span of every token of a text.

    Args:
        pieces: What the text was joined from.
        offsets: (start, end) of every token in the joined text.

    Returns:
        (T,) int8: the span of the piece that holds the token's last character.
    """
    if not offsets:
        return numpy.empty(0, numpy.int8)
    ends_of_pieces = numpy.cumsum([len(piece.text) for piece in pieces])
    # Some tokenizers put an empty token (a lone word mark) at the front: it counts to where it stands.
    starts, ends = numpy.array(offsets).T
    last_characters = numpy.maximum(starts, ends - 1)
    positions = numpy.searchsorted(ends_of_pieces, last_characters, side="right")
    spans_of_pieces = numpy.array([piece.span for piece in pieces], numpy.int8)
    spans: numpy.ndarray = spans_of_pieces[numpy.minimum(positions, len(pieces) - 1)]
    return spans
