"""REINFORCE by value: the gradient of advantage times log-probability, its draws, and what it keeps."""

import numpy
import pytest
import torch

from lightning_m2pt.prompt_search.proposers.base import ScoredPrompt
from lightning_m2pt.prompt_search.proposers.reinforce import DRAWN, ENTROPY, LOGITS, Reinforce, ascent, entropies
from lightning_m2pt.prompt_search.state import SearchState

ALLOWED = (10, 11, 12, 13)


def expected_ascent(logits, choices, counts, rewards, entropy_weight):
    """By autograd, draw for draw."""
    parameter = torch.tensor(logits, requires_grad=True)
    logs = parameter.log_softmax(dim=1)
    rows = [choice for choice, count in zip(choices, counts, strict=True) for _ in range(int(count))]
    each = torch.tensor([reward for reward, count in zip(rewards, counts, strict=True) for _ in range(int(count))])
    advantages = (each - each.mean()) / each.std(unbiased=False)
    chances = torch.stack([sum(logs[place, column] for place, column in enumerate(row)) for row in rows])
    entropy = -(logs.exp() * logs).sum()
    ((advantages * chances).mean() + entropy_weight * entropy).backward()
    return parameter.grad.numpy()


def test_the_step_is_the_gradient_of_advantage_times_log_probability():
    generator = numpy.random.default_rng(0)
    logits = generator.normal(size=(3, 4))
    choices = generator.integers(4, size=(5, 3))
    counts, rewards = numpy.array([1.0, 3.0, 1.0, 2.0, 1.0]), generator.normal(size=5)
    for weight in (0.0, 0.3):
        found = ascent(logits, choices, counts, rewards, weight)
        expected = expected_ascent(logits, choices, counts, rewards, weight)
        numpy.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_equal_rewards_and_no_draws_move_by_the_entropy_alone():
    logits = numpy.array([[1.0, 0.0, -1.0]])
    for choices, rewards in ((numpy.array([[0], [1]]), numpy.ones(2)), (numpy.zeros((0, 1), int), numpy.zeros(0))):
        found = ascent(logits, choices, numpy.ones(len(rewards)), rewards, 0.5)
        chances = numpy.exp(logits) / numpy.exp(logits).sum()
        numpy.testing.assert_allclose(found, -0.5 * chances * (numpy.log(chances) + entropies(chances)), atol=1e-12)


def test_a_round_draws_counts_and_moves():
    proposer = Reinforce(width=50, learning_rate=2.0, entropy_weight=0.1)
    state = SearchState((10, 11), 1.0, (10, 11), 1.0, 0)
    prompts, memory = proposer.propose(state, None, ALLOWED, numpy.random.default_rng(3))
    assert len(prompts) == len(set(prompts)) == len(memory[DRAWN])
    assert sum(count for _, _, count in memory[DRAWN]) == 50
    assert all(tuple(ALLOWED[column] for column in columns) == tuple(p) for p, columns, _ in memory[DRAWN])
    # The current prompt is not scored again, (11, 11) was read otherwise: the one counts by its known loss, the other
    # not at all.
    losses = {prompt: float(sum(prompt)) for prompt in prompts if prompt not in ((10, 11), (11, 11))}
    assert len(losses) == len(prompts) - 2
    start = SearchState((10, 11), 1.0, (10, 11), 1.0, 0, memory=memory)
    after = proposer.accept(start, [ScoredPrompt(*each) for each in losses.items()])
    losses[10, 11] = 1.0
    counted = [(columns, count, -losses[tuple(p)]) for p, columns, count in memory[DRAWN] if tuple(p) in losses]
    choices, counts, rewards = (numpy.array(each) for each in zip(*counted, strict=True))
    moved = 2.0 * expected_ascent(numpy.zeros((2, 4)), choices, counts, rewards, 0.1)
    numpy.testing.assert_allclose(after.memory[LOGITS], moved, atol=1e-12)
    assert after.memory[ENTROPY] == pytest.approx(entropies(torch.tensor(moved).softmax(dim=1).numpy()).mean())
    assert set(after.memory) == {LOGITS, ENTROPY}


def test_the_distribution_finds_the_only_word_that_pays():
    proposer = Reinforce(width=16)
    state = SearchState((10, 10), 1.0, (10, 10), 1.0, 0)
    for number in range(40):
        prompts, memory = proposer.propose(state, None, ALLOWED, numpy.random.default_rng(number))
        state = SearchState(state.current, state.current_loss, state.best, state.best_loss, 0, memory=memory)
        state = proposer.accept(state, [ScoredPrompt(each, float(-each.count(12))) for each in prompts])
    assert state.current == (12, 12)
    chances = numpy.exp(state.memory[LOGITS]) / numpy.exp(state.memory[LOGITS]).sum(axis=1, keepdims=True)
    assert (chances[:, 2] > 0.9).all()
