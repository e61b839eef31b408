"""What a search costs, what it may cost without consent, and sums of logits however many are held at once."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.prompt_search import shared_rows
from lightning_m2pt.prompt_search.cost import (
    SearchCost,
    refuse_small_budget,
    refuse_without_consent,
    search_cost,
)


def test_a_cost_is_two_operations_for_each_weight_of_a_row() -> None:
    shape: Any = SimpleNamespace(text_layers=2, text_width=10)
    cost = search_cost(shape, 1_000, "cpu")
    assert cost == SearchCost(1_000, 2.0 * 12 * 2 * 100 * 1_000, 4.8e6 / 3e10 / 3600)
    assert search_cost(shape, 1_000, "xpu").hours == cost.hours
    assert search_cost(shape, 1_000, "cuda").hours < cost.hours


def test_more_than_an_hour_takes_consent() -> None:
    refuse_without_consent(SearchCost(1, 1.0, 1.0), consent=False)
    refuse_without_consent(SearchCost(1, 1.0, 1.1), consent=True)
    with pytest.raises(BadInputError, match=r"the search takes at most 1 rows .* about 1\.1 hours"):
        refuse_without_consent(SearchCost(1, 1.0, 1.1), consent=False)


@pytest.mark.parametrize(("gradients", "least"), [(0, 2 * (26 + 18)), (2, 2 * (26 + 18) + 2 * 144)])
def test_a_budget_pays_for_the_start_and_a_round_of_one_prompt(gradients: int, least: int) -> None:
    scorer: Any = SimpleNamespace(rows_in_front=26, rows_of_prompt=18, rows_of_gradient=144)
    refuse_small_budget(scorer, gradients, least)
    with pytest.raises(BadInputError, match="do not pay for one round") as refused:
        refuse_small_budget(scorer, gradients, least - 1)
    assert refused.value.expected.startswith(f"{least:,} or more")


@pytest.mark.parametrize("held", [1, 40, 2**24])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_losses_are_each_sample_s_own_however_many_logits_are_held(
    held: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three samples of four rows, two prompts, seven words; one sample has one wanted row, one has none."""
    monkeypatch.setattr(shared_rows, "LOGITS_AT_ONCE", held)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(3, 2, 4, 5, generator=generator, dtype=torch.float64).to(dtype)
    head = torch.randn(5, 7, generator=generator, dtype=torch.float64).to(dtype)
    targets = torch.randint(7, (3, 2, 4), generator=generator)
    wanted = torch.tensor([[True, False, True, True], [False] * 4, [False, False, True, False]])
    backbone: Any = SimpleNamespace(
        logits=lambda rows: rows @ head, token_embedding=lambda: SimpleNamespace(num_embeddings=7)
    )
    found = shared_rows.summed(backbone, states, targets, wanted)
    logits = states @ head
    wide = (logits.float() if dtype == torch.bfloat16 else logits).log_softmax(dim=-1)
    each = -wide.gather(-1, targets[..., None])[..., 0].double() * wanted[:, None]
    torch.testing.assert_close(found, each.sum(dim=-1).T, rtol=1e-6, atol=1e-9)
