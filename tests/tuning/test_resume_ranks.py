"""A run goes on with another number of processes, and every step has its own samples and update."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from callbacks.same_on_all_ranks import SameOnAllRanks
from callbacks.step_checkpoint import StepCheckpoint
from lightning_m2pt.storage.checkpoint import latest_checkpoint
from lightning_m2pt.tuning.sample_order import OrderedSampler, ResumableLoader
from tests.callbacks.test_step_checkpoint import (
    BATCH_SIZE,
    SAMPLES,
    STEPS,
    STEPS_PER_EPOCH,
    Rows,
    Toy,
    collate,
    final_state,
)
from tests.callbacks.test_step_checkpoint_ranks import CheckpointIOOfForks


class SharingToy(Toy):
    """Takes this rank's share of every step, in micro-batches; without dropout, which no two splits share."""

    def __init__(self, micro_batch_size: int) -> None:
        super().__init__()
        self.double()
        self.dropout = torch.nn.Dropout(0.0)
        self.micro_batch_size = micro_batch_size

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return (batch.pixel_values.double() @ self.weight).square().mean()

    def train_dataloader(self) -> ResumableLoader:
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        sampler = OrderedSampler(SAMPLES, 0, BATCH_SIZE, self.micro_batch_size, rank, ranks)
        return ResumableLoader(Rows(), sampler, lambda _epoch, _step: 1, collate)


def train(folder: Path, ranks: int, micro_batch_size: int, steps: int = STEPS) -> None:
    seed_everything(3, verbose=False)
    checkpoints = folder / "checkpoints"
    trainer = Trainer(
        accelerator="cpu",
        strategy="ddp_fork" if ranks > 1 else "auto",
        devices=ranks,
        max_steps=steps,
        accumulate_grad_batches=BATCH_SIZE // (ranks * micro_batch_size),
        callbacks=[SameOnAllRanks(every_n_steps=2), StepCheckpoint(checkpoints, 100)],
        plugins=[CheckpointIOOfForks()],
        use_distributed_sampler=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(SharingToy(micro_batch_size), ckpt_path=latest_checkpoint(checkpoints), weights_only=True)


@pytest.mark.slow
def test_one_process_becomes_two_and_one_again(tmp_path: Path) -> None:
    train(tmp_path / "whole", 1, 4)
    pieces = [(1, 4, 2), (2, 1, STEPS_PER_EPOCH), (1, 1, STEPS_PER_EPOCH + 2), (2, 2, STEPS - 1), (1, 2, STEPS)]
    for ranks, micro_batch_size, until in pieces:
        train(tmp_path / "cut", ranks, micro_batch_size, until)
    cut, whole = final_state(tmp_path / "cut"), final_state(tmp_path / "whole")
    torch.testing.assert_close(cut["state_dict"]["weight"], whole["state_dict"]["weight"], rtol=1e-9, atol=1e-12)
    assert cut["global_step"] == whole["global_step"] == STEPS
    loops, same = (state["loops"]["fit_loop"] for state in (cut, whole))
    assert loops["state_dict"] == same["state_dict"]
    assert loops["epoch_progress"] == same["epoch_progress"]
