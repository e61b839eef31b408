"""Rows of the reference run as the sequences that they see."""

import pytest
import torch
from torch import Tensor

from lightning_m2pt.prompts.rows_run_again import RowsRunAgain, run_again

SEEN = torch.ones(1, 1, 3, dtype=torch.bool)


def weighed(rows: Tensor) -> Tensor:
    """Stands in for a decoder: what comes out of a row tells which rows stood before it, and where."""
    return (rows * torch.arange(1, rows.shape[1] + 1)[None, :, None]).cumsum(dim=1)


def test_rows_stand_in_the_order_of_their_positions() -> None:
    past = RowsRunAgain((), torch.tensor([[1, 0]]), embeddings=torch.tensor([[[10.0], [1.0]]]))
    states, kept = run_again(weighed, past, torch.tensor([[[100.0]]]), torch.tensor([[2]]), SEEN)
    assert states.tolist() == [[[1.0 + 2 * 10 + 3 * 100]]]
    assert kept.embeddings.tolist() == [[[10.0], [1.0], [100.0]]]
    assert kept.positions.tolist() == [[1, 0, 2]]


def test_rows_that_are_not_seen_are_left_out() -> None:
    past = RowsRunAgain((), torch.tensor([[0, 1]]), embeddings=torch.tensor([[[10.0], [1.0]]]))
    seen = torch.tensor([[[True, False, True]]])
    states, _ = run_again(weighed, past, torch.tensor([[[100.0]]]), torch.tensor([[1]]), seen)
    assert states.tolist() == [[[10.0 + 2 * 100]]]


def test_rows_that_are_no_sequence_are_refused() -> None:
    past = RowsRunAgain((), torch.tensor([[0, 1]]), embeddings=torch.zeros(1, 2, 1))
    with pytest.raises(RuntimeError, match="not one sequence"):
        run_again(weighed, past, torch.zeros(1, 1, 1), torch.tensor([[3]]), SEEN)


def test_samples_keep_their_own_positions() -> None:
    past = RowsRunAgain((), torch.tensor([[0, 1], [1, 0]]), embeddings=torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]]))
    kept = past.of(torch.tensor([1]))
    assert kept.positions.tolist() == [[1, 0]]
    assert kept.embeddings.tolist() == [[[3.0], [4.0]]]
    alike = RowsRunAgain((), torch.tensor([[0, 1]]), embeddings=past.embeddings)
    assert alike.of(torch.tensor([1])).positions.tolist() == [[0, 1]]
