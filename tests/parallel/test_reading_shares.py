"""Bases that are read from files in shares train what one process trains that reads all of them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.parallel.fully_sharded import FullyShardedStrategy
from lightning_m2pt.testing.random_backbone import random_batch
from lightning_m2pt.tuning.module import TuningModule
from tests.support.ranks import on_ranks
from tests.support.small_training import loader_of, one_step, small_trainer
from tests.support.stored_backbone import store_backbone, stored
from tests.support.strategies.sharded_training import local_share

METHODS: dict[str, Callable[[], Method]] = {
    "prompts": lambda: M2PT(2, 2),
    "head": lambda: M2PT(2, 2, init="vocabulary", lm_head=True),
    "norms": LayerNormTuning,
    "LoRA": lambda: Lora(dropout=0.0),
}
SLOW = ("prompts", "norms", "LoRA")
STEPS = 3


class InDouble(TuningModule):
    """Trains in float64, so that what differs is a fault and not rounding."""

    def configure_model(self) -> None:
        super().configure_model()
        self.method.double()


def trained(make: Callable[[], Backbone], name: str) -> tuple[dict[str, Any], float]:
    """Reads and trains on this rank's micro-batches; returns the trained tensors and which part of the base it has."""
    ranks, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    torch.manual_seed(1)
    backbone = make()
    module = InDouble(backbone, METHODS[name]())
    strategy = FullyShardedStrategy(process_group_backend="gloo") if ranks > 1 else "auto"
    trainer = small_trainer(
        strategy=strategy,
        devices=ranks,
        max_steps=STEPS,
        accumulate_grad_batches=2 // ranks,
        use_distributed_sampler=False,
    )
    steps = [
        one_step([random_batch(seed=2 * step + part, dtype=torch.float64) for part in (0, 1)]) for step in range(STEPS)
    ]
    trainer.fit(module, loader_of([step[part] for step in steps for part in range(rank, 2, ranks)]))
    tensors = {name: each.detach().double().numpy() for name, each in module.method.named_tensors().items()}
    return tensors, local_share(backbone.sharding_units()) if ranks > 1 else 1.0


def compare(make: Callable[[], Backbone], name: str) -> None:
    """Compares two ranks with one."""
    [(alone, _)] = on_ranks(1, trained, make, name)
    for together, share in on_ranks(2, trained, make, name):
        assert share == pytest.approx(0.5, abs=0.02)
        assert together.keys() == alone.keys()
        for tensor, expected in alone.items():
            assert together[tensor] == pytest.approx(expected, rel=1e-7, abs=1e-7), tensor


@pytest.mark.parametrize(
    "name", ["head", *(pytest.param(name, marks=pytest.mark.slow) for name in METHODS if name != "head")]
)
def test_every_method(tmp_path: Path, name: str) -> None:
    store_backbone(tmp_path / "b")
    compare(lambda: stored(tmp_path / "b", "float64"), name)
