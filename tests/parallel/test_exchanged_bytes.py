"""The arithmetic of what is sent in a step against what two ranks really exchange."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy, Strategy

from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.trained_parameters import trained_parameters
from lightning_m2pt.parallel.costs import FLOAT32, Model, Unit, all_sharing, sent_bytes
from lightning_m2pt.parallel.fully_sharded import FullyShardedStrategy
from lightning_m2pt.testing.random_backbone import random_batch
from lightning_m2pt.tuning.module import TuningModule
from tests.support.ranks import on_ranks
from tests.support.small_training import loader_of, module_with, one_step, small_trainer
from tests.support.strategies.cpu_zero import CpuZeroStrategy
from tests.support.strategies.exchanged_bytes import GATHER, REDUCE, SCATTER, Exchange, exchanges, sent

STEPS, MICRO_BATCHES = 3, 2
LOGGED = 64
"""Bytes of an exchange of logged values, at most."""
MOST_TENSORS = 20


def replicated() -> Strategy:
    return DDPStrategy(process_group_backend="gloo")


def shared_out() -> Strategy:
    return FullyShardedStrategy(process_group_backend="gloo")


def zero_2() -> Strategy:
    return CpuZeroStrategy(2)


def zero_3() -> Strategy:
    return CpuZeroStrategy(3)


class StepEnds(Callback):
    """Says how many exchanges there have been at the end of each step."""

    def __init__(self, found: list[Exchange]) -> None:
        self.found, self.ends = found, [0]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % MICRO_BATCHES == 0:
            self.ends.append(len(self.found))


def last_step(
    folder: Path, strategy: Callable[[], Strategy], method: Callable[[], Method]
) -> tuple[list[Exchange], Model]:
    """What one rank exchanges in its last step, and what the arithmetic takes it for."""
    module = module_with(folder, method())
    batches = one_step([random_batch(seed=seed) for seed in range(MICRO_BATCHES)]) * STEPS
    model = model_of(module)
    with exchanges() as found:
        ends = StepEnds(found)
        trainer = small_trainer(
            ends,
            strategy=strategy(),
            devices=2,
            max_steps=STEPS,
            accumulate_grad_batches=MICRO_BATCHES,
            use_distributed_sampler=False,
        )
        trainer.fit(module, loader_of(batches))
    step = found[ends.ends[-2] : ends.ends[-1]]
    return [each for each in step if each.size > LOGGED], model


def model_of(module: TuningModule) -> Model:
    """A module as the arithmetic sees it: no gradient in the tower without visual prompts, nor in the embedding."""
    backbone = module.backbone
    blocks = [] if "visual prompts" in module.method.places() else list(backbone.attention_layers()[0])
    without = {id(each) for each in (backbone.token_embedding(), *blocks)}
    frozen = [[each for each in unit.parameters() if not each.requires_grad] for unit in backbone.sharding_units()]
    sizes = [sum(each.numel() * each.itemsize for each in parameters) for parameters in frozen]
    units = [Unit(size, id(unit) not in without) for size, unit in zip(sizes, backbone.sharding_units(), strict=True)]
    trained = sum(parameter.numel() for parameter in trained_parameters(module).values())
    return Model(tuple(units), backbone.base_bytes() - sum(sizes), trained)


def m2pt() -> Method:
    return M2PT(3, 4)


def textual() -> Method:
    return M2PT(0, 4)


def test_under_ddp_the_gradients_are_reduced_once_a_step(tmp_path: Path) -> None:
    (found, model), other = on_ranks(2, last_step, tmp_path, replicated, m2pt)
    assert found == other[0]
    expected = sent_bytes(model, all_sharing("ddp", 2), MICRO_BATCHES)
    assert sent(found, REDUCE, 2) == expected.reductions == expected.total
    assert sent(found, GATHER, 2) == sent(found, SCATTER, 2) == 0


@pytest.mark.parametrize("method", [m2pt, textual])
def test_under_fsdp2_the_base_is_gathered_for_every_micro_batch(tmp_path: Path, method: Callable[[], Method]) -> None:
    (found, model), other = on_ranks(2, last_step, tmp_path, shared_out, method)
    assert found == other[0]
    expected = sent_bytes(model, all_sharing("fsdp2", 2), MICRO_BATCHES)
    assert expected.gathers > 100 * expected.reductions / MICRO_BATCHES > 0
    assert sent(found, GATHER, 2) == expected.gathers
    # Beside the gradients goes a number for each tensor, whether anybody has one.
    assert 0 <= sent(found, REDUCE, 2) - expected.reductions <= FLOAT32 * MOST_TENSORS
    assert sent(found, SCATTER, 2) == 0


@pytest.mark.slow
def test_under_zero_2_gradients_are_reduced_every_time_and_the_tensors_handed_on_once(tmp_path: Path) -> None:
    (found, model), other = on_ranks(2, last_step, tmp_path, zero_2, m2pt)
    assert found == other[0]
    expected = sent_bytes(model, all_sharing("zero2", 2), MICRO_BATCHES)
    assert expected.gathers == sent(found, SCATTER, 2) == 0
    assert sent(found, REDUCE, 2) + sent(found, GATHER, 2) == expected.reductions
    assert sent(found, REDUCE, 2) == 2 * MICRO_BATCHES * sent(found, GATHER, 2)


@pytest.mark.slow
def test_under_zero_3_gradients_are_reduced_into_shares_and_the_base_is_gathered(tmp_path: Path) -> None:
    (found, model), _ = on_ranks(2, last_step, tmp_path, zero_3, m2pt)
    expected = sent_bytes(model, all_sharing("zero3", 2), MICRO_BATCHES)
    assert sent(found, SCATTER, 2) == expected.reductions
    # What is no unit, such as norms, is shared out and gathered as well.
    assert 0 <= sent(found, GATHER, 2) - expected.gathers <= MICRO_BATCHES * model.kept / 2
    assert sent(found, REDUCE, 2) == 0
