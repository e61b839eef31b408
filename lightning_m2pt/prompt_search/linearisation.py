"""How far the linearised loss, by which gradient-guided searches rank words, agrees with the true one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from lightning_m2pt.metrics.statistics import SEED, Interval, percentile_interval
from lightning_m2pt.prompt_search.gradient import linearised_changes
from lightning_m2pt.prompt_search.prompt_texts import Prompt, PromptTexts
from lightning_m2pt.prompt_search.proposers.base import with_token
from lightning_m2pt.prompt_search.scorer import PromptScorer

RESAMPLES = 2_000
SWAPS_AT_ONCE = 256


@dataclass(frozen=True)
class SingleSwaps:
    """Prompts that differ from one prompt in one word.

    Attributes:
        places: (n,) which word.
        tokens: (n,) by which token it is replaced.
        promised: (n,) by how much the loss per supervised token changes to first order, ``(E_w - E_e) g``.
        true: (n,) by how much it changes.
    """

    places: NDArray[numpy.int64]
    tokens: NDArray[numpy.int64]
    promised: NDArray[numpy.float64]
    true: NDArray[numpy.float64]

    def rank_correlation(self) -> float:
        """Returns Spearman's coefficient of promised and true changes; equal values share their mean rank.

        NaN if either never varies.
        """
        return float(rank_correlations(self.promised[None], self.true[None])[0])

    def interval(self, seed: int = SEED) -> Interval:
        """Returns the coefficient's percentile interval of 95% over swaps drawn with replacement.

        It says nothing of other prompts or other samples.
        """
        drawn = numpy.random.default_rng(seed).integers(len(self.true), size=(RESAMPLES, len(self.true)))
        found = rank_correlations(self.promised[drawn], self.true[drawn])
        return percentile_interval(found[numpy.isfinite(found)])

    def best_within(self, top_k: int) -> float:
        """Returns in which share of the places the truly best of the swaps is among the ``top_k`` most promising."""
        hits = []
        for place in numpy.unique(self.places):
            here = self.places == place
            order = numpy.argsort(self.promised[here], kind="stable")
            hits.append(int(self.true[here].argmin()) in order[:top_k].tolist())
        return float(numpy.mean(hits))


def single_swaps(
    scorer: PromptScorer,
    texts: PromptTexts,
    allowed: Sequence[int],
    prompt: Prompt,
    number: int | None = None,
    seed: int = SEED,
) -> SingleSwaps:
    """Scores prompts that differ from one in one word, and what the gradient at this one promises of them.

    Args:
        scorer: Scores, and gives the gradient; counts the rows of both.
        texts: Say which prompts are read as they are written: the others are left out.
        allowed: Tokens that a prompt may be made of.
        prompt: The prompt.
        number: So many at most, drawn without replacement; None: all.
        seed: Decides the draw.
    """
    every = [(place, token) for place, own in enumerate(prompt) for token in allowed if token != own]
    if number is not None:
        chosen = numpy.random.default_rng(seed).permutation(len(every))[:number]
        every = [every[each] for each in sorted(chosen.tolist())]
    alive = set(texts.survivors([with_token(prompt, *swap) for swap in every]))
    swaps = [swap for swap in every if with_token(prompt, *swap) in alive]
    promised = linearised_changes(scorer.gradient(prompt), scorer.rows_of(allowed), scorer.rows_of(prompt))
    columns = {token: column for column, token in enumerate(allowed)}
    (own,) = scorer.mean_losses([prompt])
    losses: list[float] = []
    for begin in range(0, len(swaps), SWAPS_AT_ONCE):
        losses += scorer.mean_losses([with_token(prompt, *swap) for swap in swaps[begin : begin + SWAPS_AT_ONCE]])
    return SingleSwaps(
        numpy.array([place for place, _ in swaps], numpy.int64),
        numpy.array([token for _, token in swaps], numpy.int64),
        numpy.array([float(promised[place, columns[token]]) for place, token in swaps]),
        numpy.array(losses) - own,
    )


def rank_correlations(first: NDArray[numpy.float64], second: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """Returns (R,): Spearman's coefficient of each row of two (R, n); NaN where a row never varies.

    ``scipy.stats.spearmanr`` gives the same of one row (by test), and of many only one after another.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(values, axis=1) for values in (first, second)]
    centred = [each - each.mean(axis=1, keepdims=True) for each in ranks]
    size = numpy.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    with numpy.errstate(invalid="ignore"):
        found: NDArray[numpy.float64] = (centred[0] * centred[1]).sum(axis=1) / size
    return found
