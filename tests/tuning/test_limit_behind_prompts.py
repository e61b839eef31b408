"""By how much passes may differ behind textual prompts in bfloat16, where rounding grows: what disturbed rows do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.testing.random_backbone import VOCABULARY, WIDTH, random_backbone
from lightning_m2pt.tuning import self_test
from lightning_m2pt.tuning.comparison import difference, disturbed_by_rounding
from tests.tuning.test_self_test import with_prompts


@pytest.mark.parametrize(
    ("dtype", "prompted"), [(torch.bfloat16, 4 * 0.07), (torch.float32, 1e-4)], ids=["bfloat16", "float32"]
)
def test_behind_prompts_in_bfloat16_the_limit_follows_what_disturbed_rows_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, prompted: float
) -> None:
    """The two attention functions agree by chance; one of the disturbed passes is 7% off."""
    backbone = random_backbone(tmp_path, dtype)
    with_prompts(backbone)
    rows = backbone.token_embedding()(torch.arange(6)[None]).detach()
    states, logits = torch.ones(1, 6, WIDTH), torch.ones(1, 6, VOCABULARY)
    factors, seen = iter([1.0, 1.03, 1.07, 1.05]), list[Tensor]()

    def passes(given: Backbone, own: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        factor = next(factors)
        assert given is backbone
        assert torch.equal(own, rows) is (factor == 1)
        assert not any(torch.equal(own, other) for other in seen)
        seen.append(own)
        return states, factor * logits

    monkeypatch.setattr(self_test, "library_passes", passes)
    assert self_test.limit_of(backbone, rows, None, (states, logits)) == pytest.approx(prompted)
    assert len(list(factors)) == (0 if dtype == torch.bfloat16 else 3)


def test_without_textual_prompts_no_row_is_disturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = random_backbone(tmp_path, torch.bfloat16)
    with_prompts(backbone)
    monkeypatch.setattr(self_test, "disturbed_by_rounding", lambda *_: pytest.fail("disturbed"))
    rows = backbone.token_embedding()(torch.arange(6)[None])
    with torch.no_grad(), self_test.without_textual_prompts(backbone):
        self_test.limit_of(backbone, rows, None, self_test.library_passes(backbone, rows))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_rows_are_disturbed_by_about_what_bfloat16_rounds(dtype: torch.dtype) -> None:
    rows = 20 * torch.randn(1, 50, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    generator = torch.Generator().manual_seed(1)
    first, second = (disturbed_by_rounding(rows, generator) for _ in range(2))
    rounding = difference(rows.float().mul(1.1).to(torch.bfloat16), rows.float().mul(1.1))
    for found in (first, second):
        assert found.dtype == dtype
        assert rounding / 2 < difference(found, rows) < 2 * rounding
    assert not torch.equal(first, second)
    assert torch.equal(first, disturbed_by_rounding(rows, torch.Generator().manual_seed(1)))
