"""Processes that do not train one model are stopped before the first update, all of them together."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from callbacks.same_on_all_ranks import SameOnAllRanks
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.tensor_hashes import hash_tensors
from tests.callbacks.test_step_checkpoint_ranks import RANKS, CheckpointIOOfForks, SharingToy


class Module(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)
        self.trained = nn.Parameter(torch.ones(2))
        self.trained.grad = torch.full((2,), 3.0)


def trainer_of(ranks: int, step: int = 0) -> SimpleNamespace:
    return SimpleNamespace(world_size=ranks, global_step=step, strategy=DDPStrategy())


Gathered = Callable[[dict[int, str]], list[str]]


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> Gathered:
    """Lets other ranks answer with hashes of their own; the rest answer as this one. Returns what this one sent."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)

    def others(answers: dict[int, str]) -> list[str]:
        sent: list[str] = []

        def gather(into: list[str], mine: str) -> None:
            sent.append(mine)
            into[:] = [answers.get(rank, mine) for rank in range(len(into))]

        monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
        return sent

    return others


def call_all(callback: SameOnAllRanks, trainer: Any, module: Any) -> None:
    callback.on_train_start(trainer, module)
    callback.on_before_optimizer_step(trainer, module, None)
    trainer.global_step += 1
    callback.on_train_batch_end(trainer, module, None, None, 0)
    callback.on_train_end(trainer, module)


def test_a_single_process_computes_nothing(gathered: Gathered) -> None:
    sent = gathered({})
    call_all(SameOnAllRanks(every_n_steps=1), trainer_of(1), Module())
    assert sent == []


def test_tensors_gradients_and_tensors_again_are_compared(gathered: Gathered) -> None:
    sent, module = gathered({}), Module()
    call_all(SameOnAllRanks(every_n_steps=1), trainer_of(4), module)
    tensors = hash_tensors({"trained": module.trained})
    assert sent == [tensors, hash_tensors({"trained": module.trained.grad}), tensors, tensors]


def test_gradients_are_compared_once_and_tensors_at_the_interval(gathered: Gathered) -> None:
    sent, callback, trainer, module = gathered({}), SameOnAllRanks(every_n_steps=2), trainer_of(2), Module()
    callback.on_train_start(trainer, module)
    for micro_batch in range(8):
        trainer.global_step = (micro_batch + 1) // 2
        callback.on_before_optimizer_step(trainer, module, None)
        callback.on_train_batch_end(trainer, module, None, None, micro_batch)
    assert len(sent) == 1 + 1 + 2


@pytest.mark.parametrize(
    ("hook", "what"),
    [
        ("on_train_start", "trained tensors"),
        ("on_before_optimizer_step", "gradients"),
        ("on_train_batch_end", "trained tensors"),
        ("on_train_end", "trained tensors"),
    ],
)
def test_a_rank_that_differs_is_named_in_three_lines(gathered: Gathered, hook: str, what: str) -> None:
    gathered({2: "other", 3: "another", 4: "other", 5: "other", 6: "other"})
    arguments = {"on_before_optimizer_step": (None,), "on_train_batch_end": (None, None, 0)}.get(hook, ())
    with pytest.raises(BadInputError, match=f"under DDPStrategy the {what} of rank 2, 3, 4 and 2 more") as refused:
        getattr(SameOnAllRanks(1), hook)(trainer_of(8, step=1), Module(), *arguments)
    assert len(str(refused.value).splitlines()) == 3
    assert refused.value.exit_code == 2


def test_unconnected_processes_are_refused() -> None:
    with pytest.raises(BadInputError, match="2 processes that are not connected"):
        SameOnAllRanks().on_train_start(trainer_of(2), Module())


class AloneStrategy(DDPStrategy):
    """Never exchanges a gradient, as the second form of FSDP without a plan."""

    def configure_ddp(self) -> None:
        pass


class OtherStart(SharingToy):
    def configure_model(self) -> None:
        self.weight.data.add_(self.trainer.global_rank)


def train(strategy: DDPStrategy, toy: LightningModule) -> None:
    seed_everything(3, verbose=False)
    trainer = Trainer(
        accelerator="cpu",
        strategy=strategy,
        devices=RANKS,
        max_steps=3,
        callbacks=[SameOnAllRanks(every_n_steps=2)],
        plugins=[CheckpointIOOfForks()],
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(toy)


@pytest.mark.slow
def test_two_processes_that_train_alone_are_refused_and_those_of_ddp_are_not(tmp_path: Path) -> None:
    train(DDPStrategy(start_method="fork"), SharingToy())
    error = torch.multiprocessing.ProcessRaisedException
    with pytest.raises(error, match=r"under AloneStrategy the gradients of rank 1 differ .* at step 0"):
        train(AloneStrategy(start_method="fork"), SharingToy())
    with pytest.raises(error, match=r"under AloneStrategy the trained tensors of rank 1 differ .* at step 0"):
        train(AloneStrategy(start_method="fork"), OtherStart())
