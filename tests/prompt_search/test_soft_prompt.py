"""Free rows in the place of a prompt's words: their loss, their gradient and their steps, by value."""

import pytest
import torch

from lightning_m2pt.prompt_search.soft_prompt import score_of_rows, trained_rows
from tests.support.prompt_searches import drawn, ready


@pytest.fixture
def searched(tuned, split):
    _, allowed, scorer = ready(tuned, split)
    scorer.rows = 0
    return scorer, drawn(allowed, 1)[0]


def test_rows_of_words_are_worth_what_the_words_are(searched):
    scorer, prompt = searched
    other = tuple(reversed(prompt))  # the words that hold the place do not matter
    own = scorer.rows_of(prompt)
    assert score_of_rows(scorer, other, own).loss == pytest.approx(scorer.reference_loss(prompt), rel=1e-6)
    assert scorer.rows == 0
    loss, gradient = scorer.loss_and_gradient(other, own)
    assert loss == pytest.approx(scorer.reference_loss(prompt), rel=1e-6)
    torch.testing.assert_close(gradient, scorer.gradient(prompt), rtol=1e-4, atol=1e-6)
    assert scorer.rows == 2 * scorer.rows_of_gradient


def test_the_gradient_at_free_rows_is_the_slope_of_their_loss(searched):
    scorer, prompt = searched
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 128, generator=generator) * 0.5
    direction = torch.randn(2, 128, generator=generator)
    _, gradient = scorer.loss_and_gradient(prompt, rows)
    up, down = (score_of_rows(scorer, prompt, rows + by * direction).loss for by in (1e-3, -1e-3))
    assert (up - down) / 2e-3 == pytest.approx(float((gradient * direction).sum()), rel=0.02)


def test_rows_are_trained_by_adam_within_the_budget_and_the_best_step_is_kept(searched):
    scorer, prompt = searched
    told = []
    soft = trained_rows(
        scorer, prompt, 4 * scorer.rows_of_gradient - 1, learning_rate=3.0, on_step=lambda *each: told.append(each)
    )
    assert (soft.steps, soft.ran) == (3, 3 * scorer.rows_of_gradient)
    rows = torch.nn.Parameter(scorer.rows_of(prompt).clone())
    optimizer = torch.optim.Adam([rows], lr=3.0 * float(rows.detach().pow(2).mean().sqrt()))
    losses, seen = [], []
    for _ in range(3):
        loss, rows.grad = scorer.loss_and_gradient(prompt, rows.detach())
        losses.append(loss)
        seen.append(rows.detach().clone())
        optimizer.step()
    assert [loss for _, loss in told] == losses
    assert soft.loss == min(losses)
    torch.testing.assert_close(soft.rows, seen[losses.index(min(losses))], rtol=0, atol=0)
    assert soft.curve[0] == (scorer.rows_of_gradient, losses[0])
    assert soft.curve[-1] == ((losses.index(min(losses)) + 1) * scorer.rows_of_gradient, soft.loss)
    assert score_of_rows(scorer, prompt, soft.rows).loss == pytest.approx(soft.loss, rel=1e-5)
    with pytest.raises(ValueError, match="a step costs"):
        trained_rows(scorer, prompt, scorer.rows_of_gradient - 1)


def test_trained_rows_are_below_their_start_and_answer_more(searched):
    scorer, prompt = searched
    soft = trained_rows(scorer, prompt, 12 * scorer.rows_of_gradient)
    before, after = score_of_rows(scorer, prompt, scorer.rows_of(prompt)), score_of_rows(scorer, prompt, soft.rows)
    assert after.loss < before.loss - 0.5
    assert after.accuracy >= before.accuracy
    right = scorer_accuracy(scorer, prompt)
    assert before.accuracy == right


def scorer_accuracy(scorer, prompt) -> float:
    """The share of samples whose every answer token is the most likely one, one sample after another."""
    from lightning_m2pt.prompt_search.scored_samples import batch_of
    from lightning_m2pt.tuning.losses import supervised_rows

    right = 0
    for sample in scorer.samples:
        batch = batch_of([sample.filled(prompt)], scorer.processor, scorer.backbone)
        with torch.no_grad():
            right += bool(supervised_rows(scorer.backbone, batch).right.all())
    return right / len(scorer.samples)
