"""What the linearised loss promises of single words beside what they do, by value."""

import numpy
import pytest
import torch
from scipy.stats import spearmanr

from lightning_m2pt.prompt_search.linearisation import SingleSwaps, rank_correlations, single_swaps

WORDS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.2], [0.3, -1.0]])
GRADIENT = torch.tensor([[0.5, -2.0], [1.0, 0.1]])
ALLOWED = (10, 11, 12, 13)


class Scorer:
    """Four words in the plane; what a prompt loses is the product of its rows with the gradient, plus what bends."""

    def __init__(self, bend: float = 0.0) -> None:
        self.bend = bend

    def rows_of(self, ids):
        return WORDS[[each - 10 for each in ids]]

    def gradient(self, prompt):
        return GRADIENT

    def mean_losses(self, prompts):
        linear = [float((self.rows_of(each) * GRADIENT).sum()) for each in prompts]
        return [loss - self.bend * loss**2 for loss in linear]

    def survivors(self, prompts):
        return [each for each in prompts if each != (13, 11)]


def test_where_the_loss_is_linear_promises_hold():
    swaps = single_swaps(Scorer(), Scorer(), ALLOWED, (10, 11))
    expected = [(0, 11), (0, 12), (1, 10), (1, 12), (1, 13)]  # (13, 11) is read otherwise
    assert list(zip(swaps.places.tolist(), swaps.tokens.tolist(), strict=True)) == expected
    numpy.testing.assert_allclose(swaps.promised, swaps.true, atol=1e-6)
    numpy.testing.assert_allclose(swaps.true, [-2.5, -1.4, 0.9, -1.08, 0.1], atol=1e-6)
    assert swaps.rank_correlation() == pytest.approx(1.0)
    assert swaps.best_within(1) == 1.0


def test_some_swaps_are_drawn_once_each_and_by_the_seed_alone():
    drawn = [single_swaps(Scorer(), Scorer(), ALLOWED, (10, 11), 4, seed) for seed in (3, 3, 4, 5)]
    pairs = [list(zip(each.places.tolist(), each.tokens.tolist(), strict=True)) for each in drawn]
    assert all(len(set(each)) == len(each) <= 4 for each in pairs)
    assert pairs[0] == pairs[1]
    assert len({tuple(each) for each in pairs}) > 1


def test_ranks_are_spearmans_with_shared_ranks_of_equal_values():
    generator = numpy.random.default_rng(0)
    first, second = generator.integers(5, size=(4, 30)).astype(float), generator.normal(size=(4, 30))
    expected = [spearmanr(one, other).statistic for one, other in zip(first, second, strict=True)]
    numpy.testing.assert_allclose(rank_correlations(first, second), expected, rtol=0, atol=1e-12)
    assert numpy.isnan(rank_correlations(numpy.ones((1, 3)), second[:1, :3])).all()


def test_intervals_hold_the_coefficient_and_shrink_with_the_number_of_swaps():
    generator = numpy.random.default_rng(1)
    promised = generator.normal(size=400)
    true = promised + 2 * generator.normal(size=400)
    few, many = (
        SingleSwaps(numpy.zeros(n, int), numpy.arange(n), promised[:n], true[:n]).interval() for n in (40, 400)
    )
    found = spearmanr(promised, true).statistic
    assert many.low < found < many.high
    assert many.high - many.low < 0.45 * (few.high - few.low)
    assert many.high - many.low == pytest.approx(2 * 1.96 / 20 * 0.9, rel=0.2)  # about (1 - r^2) / sqrt(n)


def test_the_best_of_a_place_is_counted_among_the_most_promising():
    places = numpy.array([0, 0, 0, 1, 1, 1])
    swaps = SingleSwaps(
        places,
        numpy.array([5, 6, 7, 5, 6, 7]),
        promised=numpy.array([-3.0, -2.0, -1.0, -1.0, -2.0, -3.0]),
        true=numpy.array([-1.0, 1.0, -2.0, 1.0, 0.0, -1.0]),
    )
    assert [swaps.best_within(number) for number in (1, 2, 3)] == [0.5, 0.5, 1.0]


def test_gradient_promises_small_changes_of_the_model_s_own_loss(tuned, split):
    from tests.support.prompt_searches import drawn, ready

    texts, allowed, scorer = ready(tuned, split)
    (prompt,) = drawn(allowed, 1)
    scorer.rows = 0
    swaps = single_swaps(scorer, texts, allowed.ids, prompt, number=5)
    assert scorer.rows == scorer.rows_of_gradient + 2 * scorer.rows_in_front + 6 * scorer.rows_of_prompt
    for place, token, true in zip(swaps.places, swaps.tokens, swaps.true, strict=True):
        other = tuple(int(token) if place == each else own for each, own in enumerate(prompt))
        assert scorer.reference_loss(other) - scorer.reference_loss(prompt) == pytest.approx(true, abs=1e-4)
