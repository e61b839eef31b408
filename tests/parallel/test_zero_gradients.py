"""Under ZeRO every gradient of every step is one process's, with the optimizer's state or the base shared out."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.inputs.batch import IGNORED_LABEL, Batch
from lightning_m2pt.methods.adapter import Adapter
from lightning_m2pt.methods.aprompt import APrompt
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch
from tests.support.ranks import on_ranks
from tests.support.small_training import one_step
from tests.support.strategies.cpu_zero import CpuZeroStrategy
from tests.support.strategies.sharded_training import Make, Steps, compare, on_both, replicated, train

TOLERANCE = 1e-5
"""Relative to a tensor's largest number; DeepSpeed's optimizer computes in float32."""
METHODS: dict[str, Callable[[], Method]] = {
    "m2pt": lambda: M2PT(3, 4, init="normal", init_std=0.5),
    "vpt": lambda: M2PT(3, 0, interaction=False, visual_rows_to_text="none", init="normal", init_std=0.5),
    "ptum_prefix": lambda: PrefixTuning(3),
    "lora": lambda: Lora(2, dropout=0.0, vision=True),
    "aprompt": lambda: APrompt(3, 2),
    "adapter": lambda: Adapter(4),
}


def made(folder: Path, method: str, *, recomputes: bool = False, dtype: torch.dtype = torch.float32) -> Make:
    def make() -> tuple[Backbone, Method]:
        backbone = random_backbone(folder, dtype)
        if recomputes:
            backbone.recompute_activations(True)
            backbone.finish()
        return backbone, METHODS[method]()

    return make


def without_picture(batch: Batch) -> Batch:
    return replace(
        batch,
        pixel_values=batch.pixel_values[:0],
        input_ids=torch.where(batch.input_ids < 0, 3, batch.input_ids),
    )


def without_answers(batch: Batch) -> Batch:
    return replace(batch, labels=torch.full_like(batch.labels, IGNORED_LABEL))


def steps_of(number: int, micro_batches: int) -> Steps:
    batches = [random_batch(seed=seed) for seed in range(number * micro_batches)]
    return [one_step(batches[at : at + micro_batches]) for at in range(0, len(batches), micro_batches)]


def test_three_ranks_share_out_the_base_and_run_the_same_modules(tmp_path: Path) -> None:
    """Tensors do not divide by three; a rank without a picture, or without an answer, leaves no other waiting."""
    first, (one, two, three, four, five, six) = steps_of(2, micro_batches=6)
    second = [without_picture(one), two, three, without_answers(four), without_answers(without_picture(five)), six]
    steps = [first, one_step(second)]
    found, expected = on_both(made(tmp_path, "m2pt"), steps, ranks=3, strategy=partial(CpuZeroStrategy, 3))
    compare(found, expected, TOLERANCE)
    assert found.share == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("recomputes", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("stage", [2, 3])
def test_every_method(tmp_path: Path, name: str, recomputes: bool, stage: int) -> None:
    make, strategy = made(tmp_path, name, recomputes=recomputes), partial(CpuZeroStrategy, stage)
    found, expected = on_both(make, steps_of(4, micro_batches=4), strategy=strategy, gradient_clip_val=0.5)
    compare(found, expected, TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_a_base_in_bfloat16_stays_in_bfloat16(tmp_path: Path, stage: int) -> None:
    """The first loss is that of replicas to the last bit, where these round as stage 3 does: it adds biases last."""
    from deepspeed.runtime.zero.linear import zero3_linear_wrap

    def make() -> tuple[Backbone, Method]:
        backbone, method = made(tmp_path, "m2pt", dtype=torch.bfloat16)()
        if stage == 3:
            torch.nn.functional.linear = zero3_linear_wrap
            backbone.runs_in_lockstep = True
        return backbone, method

    shortcuts = EVERY_ROW if stage == 3 else Shortcuts()
    found, expected = (
        on_ranks(2, partial(train, shortcuts=shortcuts), make, steps_of(6, micro_batches=4), strategy)[0]
        for strategy in (partial(CpuZeroStrategy, stage), replicated)
    )
    assert found.losses[0] == expected.losses[0]
    assert found.losses == pytest.approx(expected.losses, rel=1e-3)
