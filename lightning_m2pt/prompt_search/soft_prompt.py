"""Free rows in the place of a prompt's words: what no words of so many rows can be expected to go below.

A searched prompt chooses each of its rows among the vocabulary's. Here the rows go anywhere, by the gradient of the
same loss on the same samples. Whatever a search finds is inside what they may be; how far training gets within a budget
is another matter, so the bound is the reached loss and no proof.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_m2pt.backbones.shortcuts import EVERY_ROW
from lightning_m2pt.prompt_search.gradient import prompt_rows
from lightning_m2pt.prompt_search.prompt_texts import Prompt
from lightning_m2pt.prompt_search.scored_samples import batch_of
from lightning_m2pt.prompt_search.scorer import SAMPLES_AT_ONCE, PromptScorer
from lightning_m2pt.tuning.losses import supervised_rows


@dataclass(frozen=True)
class SoftPrompt:
    """Rows that were trained.

    Attributes:
        rows: (length, D) float32 on the CPU, those with the least loss of all steps.
        loss: Their loss per supervised token on the scorer's samples.
        steps: Gradients that were taken.
        ran: Rows that went through the language model, counted as in a search.
        curve: Rows run and the least loss, wherever it fell: as ``SearchState.curve``.
    """

    rows: Tensor
    loss: float
    steps: int
    ran: int
    curve: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class RowsScore:
    """What rows in the place of words are worth on some samples.

    Attributes:
        loss: Per supervised token.
        accuracy: Share of samples of which every supervised token is the most likely one.
    """

    loss: float
    accuracy: float


def trained_rows(
    scorer: PromptScorer,
    start: Prompt,
    budget: int,
    learning_rate: float = 0.1,
    on_step: Callable[[int, float], None] | None = None,
) -> SoftPrompt:
    """Trains rows in a prompt's places by Adam, from the rows of a prompt's words, until a budget is spent.

    A step's loss comes with its gradient and costs nothing beside it. The rows after the last step are not looked at.

    Args:
        scorer: Gives gradients over all its samples, and counts rows from 0.
        start: Words to start from.
        budget: Rows of the language model; a backward pass counts as two forward ones, as for every search.
        learning_rate: In units of the root mean square of the start's rows.
        on_step: Told after every step of the rows run and the step's loss.

    Raises:
        ValueError: If the budget does not pay for one step.
    """
    if budget < scorer.rows_of_gradient:
        raise ValueError(f"a step costs {scorer.rows_of_gradient} rows, and the budget is {budget}")
    scorer.rows = 0
    rows = torch.nn.Parameter(scorer.rows_of(start).clone())
    optimizer = torch.optim.Adam([rows], lr=learning_rate * float(rows.detach().pow(2).mean().sqrt()))
    best, least, steps, curve = rows.detach().clone(), float("inf"), 0, []
    while scorer.rows + scorer.rows_of_gradient <= budget:
        loss, gradient = scorer.loss_and_gradient(start, rows.detach())
        steps += 1
        if loss < least:
            best, least = rows.detach().clone(), loss
            curve.append((scorer.rows, loss))
        if on_step is not None:
            on_step(scorer.rows, loss)
        rows.grad = gradient
        optimizer.step()
    return SoftPrompt(best.cpu(), least, steps, scorer.rows, tuple(curve))


def score_of_rows(scorer: PromptScorer, place: Prompt, rows: Tensor) -> RowsScore:
    """Returns what rows are worth on a scorer's samples, which may be others than they were trained on; counts nothing.

    Args:
        scorer: Of the samples.
        place: Any prompt of as many tokens, which holds the place.
        rows: (length, D) float32.
    """
    total, right = 0.0, 0
    for begin in range(0, len(scorer.samples), SAMPLES_AT_ONCE):
        some = scorer.samples[begin : begin + SAMPLES_AT_ONCE]
        batch = batch_of([sample.filled(place) for sample in some], scorer.processor, scorer.backbone)
        starts = [sample.opened.starts(scorer.length) for sample in some]
        with torch.no_grad(), prompt_rows(scorer.backbone, batch, starts, scorer.length, rows):
            found = supervised_rows(scorer.backbone, batch, EVERY_ROW)
        total += float(found.losses.double().sum())
        right += len(some) - len(set(found.sample[~found.right].tolist()))
    return RowsScore(total / scorer.tokens, right / len(scorer.samples))
