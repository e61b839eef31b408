"""Successive halving: all candidates on a few samples, the better half on twice as many, and so on to all samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sums:
    """What was measured of one candidate, as sums over samples.

    Attributes:
        loss: Cross-entropy of the supervised tokens.
        tokens: Their number.
        right: Samples of which every supervised token is the most likely one.
        samples: Samples.
        rows: Rows that went through the language model.
    """

    loss: float = 0.0
    tokens: int = 0
    right: int = 0
    samples: int = 0
    rows: int = 0

    def __add__(self, other: "Sums") -> "Sums":
        """Returns both together."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Sums(*(one + another for one, another in pairs))

    @property
    def mean_loss(self) -> float:
        """Loss per supervised token."""
        return self.loss / max(self.tokens, 1)

    @property
    def accuracy(self) -> float:
        """Share of samples that are right."""
        return self.right / max(self.samples, 1)


@dataclass(frozen=True)
class Rung:
    """One round.

    Attributes:
        samples: How many samples each of its candidates has been measured on at its end, from the first on.
        measured: What was measured of each candidate on these, in the order in which they came.
        kept: The candidates that go on, the best first; of the last round the one that is chosen.
    """

    samples: int
    measured: Mapping[str, Sums]
    kept: tuple[str, ...]


def rounds(candidates: int, samples: int) -> list[tuple[int, int]]:
    """Returns for every round how many candidates take part, and on how many samples they have been measured after it.

    Args:
        candidates: How many there are, two or more.
        samples: How many samples the last round sees.
    """
    number = max(1, (candidates - 1).bit_length())
    planned = []
    for left in range(number - 1, -1, -1):
        planned.append((candidates, max(1, -(-samples // 2**left))))
        candidates = -(-candidates // 2)
    return planned


def halved(
    names: Sequence[str], samples: int, measure: Callable[[str, range], Sums], on_rung: Callable[[Rung], None]
) -> list[Rung]:
    """Measures candidates on the same samples in the same order and leaves out the worse half of every round.

    What decides is the loss per supervised token; of two that are equal the one that was named first is better. No
    sample is measured twice for a candidate.

    Args:
        names: The candidates, two or more.
        samples: How many samples there are.
        measure: Returns what a candidate makes of the samples of a range.
        on_rung: Told of every round.
    """
    known: dict[str, Sums] = dict.fromkeys(names, Sums())
    order, before, rungs = list(names), 0, []
    for count, until in rounds(len(names), samples):
        for name in order[:count]:
            known[name] += measure(name, range(before, until))
        taking_part = {name: known[name] for name in names if name in order[:count]}
        ranked = sorted(taking_part, key=lambda name: taking_part[name].mean_loss)
        order, before = ranked[: -(-count // 2)], until
        rungs.append(Rung(until, taking_part, tuple(order)))
        on_rung(rungs[-1])
    return rungs
