"""Two methods at once: with one of them knocked out the other one is left, as it would be by itself."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch
from lightning_m2pt.tuning.losses import supervised_rows


@pytest.mark.parametrize(
    "beside",
    [
        lambda: Lora(2, interaction=False, dropout=0.0),
        Full,
        lambda: PixelPrompting(compose="shrink", space="normalised", init_std=1.0),
    ],
    ids=["lora", "full", "pixels"],
)
def test_one_side_alone_is_the_other_one_knocked_out(tmp_path: Path, beside: Callable[[], Method]) -> None:
    backbone, batch = random_backbone(tmp_path), random_batch()
    both = Combined([beside(), M2PT(2, 3, interaction=False, init="normal", init_std=0.5)])
    generator = torch.Generator().manual_seed(1)
    both.build(backbone, generator)
    with torch.no_grad():
        for tensor in both.named_tensors().values():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))

    def losses(method: Method, without: frozenset[str] = frozenset()) -> Tensor:
        method.attach(backbone, without)
        try:
            with torch.no_grad():
                return supervised_rows(backbone, batch).losses.double()
        finally:
            method.detach(backbone)

    first, prompts = both.methods()
    untouched, together = losses(both, frozenset(both.part_names())), losses(both)
    for kept, out in ((first, prompts), (prompts, first)):
        found, alone = losses(both, frozenset(out.part_names())), losses(kept)
        torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-6)
        assert float((alone - untouched).abs().max()) > 1e-3
        assert float((alone - together).abs().max()) > 1e-3
