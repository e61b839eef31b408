"""Gradients are averaged over ranks by value, in one exchange for each type."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lightning_m2pt.parallel.average import average_gradients, same_as_first_rank
from tests.support.ranks import on_ranks


def averaged() -> Any:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    both, first_only, on_none = (nn.Parameter(torch.zeros(2, 3)) for _ in range(3))
    wide = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    both.grad = torch.full((2, 3), 1.0 + rank)
    first_only.grad = torch.full((2, 3), 4.0) if rank == 0 else None
    wide.grad = torch.tensor([1.0, 3.0 * rank], dtype=torch.float64)
    exchange, calls = torch.distributed.all_reduce, []
    torch.distributed.all_reduce = lambda tensor: (calls.append(tensor.numel()), exchange(tensor))
    average_gradients([both, wide, first_only, on_none])
    torch.distributed.all_reduce = exchange
    tensors = [torch.full((2,), 5.0 + rank), torch.full((1, 2), 7.0 + rank)]
    same_as_first_rank(tensors)
    gradients = [None if each.grad is None else each.grad.tolist() for each in (both, first_only, on_none, wide)]
    return gradients, calls, [each.tolist() for each in tensors]


def test_gradients_are_averaged_and_what_has_none_anywhere_keeps_none() -> None:
    expected = [[[1.5] * 3] * 2, [[2.0] * 3] * 2, None, [1.0, 1.5]], [3 * 6 + 3, 2 + 1], [[5.0, 5.0], [[7.0, 7.0]]]
    assert on_ranks(2, averaged) == [expected, expected]


def test_one_rank_exchanges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = SimpleNamespace(get_world_size=lambda: 1)
    monkeypatch.setattr("lightning_m2pt.parallel.average.torch.distributed", alone)
    parameter = nn.Parameter(torch.zeros(1))
    average_gradients([parameter])
    assert parameter.grad is None
