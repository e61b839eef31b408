"""What the training step does once or not at all because the loss cannot tell the difference."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shortcuts:
    """Exact savings of the training step; each can be switched off, and with both off every row is computed.

    They hold on the prefix path. On the token path, the reference, every row is computed whatever is said here. While
    dropout inside the decoder is active, the reference is met in distribution: fewer rows draw fewer numbers.

    Attributes:
        shared_rows_once: Rows in front of the first picture that all samples of a batch have alike (begin token, system
            text, raw prompt rows) run through the decoder once per batch. Not done for a single sample, nor where
            dropout inside the decoder draws for every sample.
        supervised_rows_only: The last decoder layer asks and answers for the rows that predict a supervised token
            alone, and rows behind the last of them are left out everywhere.
    """

    shared_rows_once: bool = True
    supervised_rows_only: bool = True


EVERY_ROW = Shortcuts(shared_rows_once=False, supervised_rows_only=False)
"""The reference: nothing is left out."""
