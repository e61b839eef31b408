"""What micro-batches of a step add up to, by value: signs, weights, shares, and a step that begins anew."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_m2pt.tuning.regularisers.base import wide
from lightning_m2pt.tuning.regularisers.step_terms import StepTerms

NEAR: Any = SimpleNamespace(name="near", sign=1, weight=0.5)
ALIKE: Any = SimpleNamespace(name="alike", sign=-1, weight=2.0)


def test_terms_are_signed_weighted_and_logged_as_shares_of_the_cross_entropy() -> None:
    """Two micro-batches of a step of four pictures on this process; another process has twice as much."""
    reduced: list[str] = []

    def reduce(values: torch.Tensor, reduce_op: str) -> torch.Tensor:
        reduced.append(reduce_op)
        return 3 * values

    strategy: Any = SimpleNamespace(root_device=torch.device("cpu"), reduce=reduce)
    terms = StepTerms([NEAR, ALIKE])
    sums = torch.tensor([3.0, 8.0], requires_grad=True)
    share = terms.add(torch.tensor(1.5), sums.unbind(), 4)
    assert share is not None
    assert float(share.detach()) == 0.5 * 3 / 4 - 2.0 * 8 / 4
    share.backward()
    assert sums.grad is not None
    assert sums.grad.tolist() == [0.125, -0.5]
    terms.add(torch.tensor(0.5), torch.tensor([1.0, 0.0]).unbind(), 4)
    assert terms.add(torch.tensor(2.0), (), 4) is None  # a micro-batch without a picture
    logged = terms.ended(strategy, torch.float64)
    assert logged == pytest.approx(
        {
            "train/near": 3.0,
            "train/near/share": 0.5 * 3.0 / 12.0,
            "train/alike": 6.0,
            "train/alike/share": -2.0 * 6.0 / 12.0,
        }
    )
    assert reduced == ["sum"]
    assert set(terms.ended(strategy, torch.float64).values()) == {0.0}
    assert StepTerms([]).ended(strategy, torch.float64) == {}


def test_rows_are_compared_in_float32_or_wider() -> None:
    kinds = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
    found = [wide(torch.zeros(1, dtype=kind)).dtype for kind in kinds]
    assert found == [torch.float32, torch.float32, torch.float32, torch.float64]
