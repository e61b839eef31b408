"""Two processes save once, keep the generators of both, and resume bit for bit."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from safetensors.torch import load_file, save_file

from callbacks.step_checkpoint import StepCheckpoint
from lightning_m2pt.storage.checkpoint import latest_checkpoint
from lightning_m2pt.storage.checkpoint_io import VerifiedCheckpointIO
from lightning_m2pt.tuning.boundary_state import RNG_KEY
from lightning_m2pt.tuning.sample_order import OrderedSampler, ResumableLoader
from tests.callbacks.test_step_checkpoint import (
    BATCH_SIZE,
    INTERVAL,
    SAMPLES,
    STEPS,
    Rows,
    Toy,
    assert_same,
    collate,
    final_state,
)

RANKS, HANDED_OVER = 2, ".temp.ckpt"


class SharingToy(Toy):
    """Each rank takes its half of every step."""

    def train_dataloader(self) -> ResumableLoader:
        sampler = OrderedSampler(SAMPLES, 0, BATCH_SIZE, None, self.trainer.global_rank, RANKS)
        return ResumableLoader(Rows(), sampler, lambda _epoch, _step: 1, collate)


class CheckpointIOOfForks(VerifiedCheckpointIO):
    """Also takes the file in which Lightning's forking launcher hands the last weights to the process that forked."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        if Path(path).name == HANDED_OVER:
            save_file(checkpoint, path)
        else:
            super().save_checkpoint(checkpoint, path, storage_options)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        if Path(path).name == HANDED_OVER:
            return load_file(path)
        return super().load_checkpoint(path, map_location, weights_only)

    def remove_checkpoint(self, path: str | Path) -> None:
        if Path(path).name == HANDED_OVER:
            Path(path).unlink()
        else:
            super().remove_checkpoint(path)


class SignalOneRank(Callback):
    """Asks one of the processes to stop, as a scheduler may."""

    def on_after_backward(self, trainer: Trainer, _pl_module: Any) -> None:
        import signal

        if trainer.global_step == 4 and trainer.global_rank == 1:
            signal.raise_signal(signal.SIGTERM)


def train(folder: Path, steps: int = STEPS, extra: Callback | None = None) -> None:
    seed_everything(3, verbose=False)
    trainer = Trainer(
        accelerator="cpu",
        strategy="ddp_fork",
        devices=RANKS,
        max_steps=steps,
        callbacks=[StepCheckpoint(folder / "checkpoints", INTERVAL), *([extra] if extra else [])],
        plugins=[CheckpointIOOfForks()],
        use_distributed_sampler=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(SharingToy(), ckpt_path=latest_checkpoint(folder / "checkpoints"), weights_only=True)


@pytest.mark.slow
def test_two_processes_resume_bit_for_bit_and_stop_together(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    state = final_state(tmp_path / "whole")
    assert len(state[RNG_KEY]) == RANKS
    train(tmp_path / "cut", steps=5)
    train(tmp_path / "cut")
    assert_same(final_state(tmp_path / "cut"), state)
    with pytest.raises(torch.multiprocessing.ProcessExitedException, match="143"):
        train(tmp_path / "stopped", extra=SignalOneRank())
    assert final_state(tmp_path / "stopped")["global_step"] == 5
    train(tmp_path / "stopped")
    assert_same(final_state(tmp_path / "stopped"), state)
