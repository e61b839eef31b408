"""What an instruction set and the Trainer that tunes on it agree on: seed, split of a step, order of a resume."""

from collections.abc import Mapping

import torch
from lightning.pytorch import Trainer

from lightning_m2pt.errors import BadInputError


def seed_of_run(trainer: Trainer) -> int:
    """Returns the first process's seed, that of ``seed_everything`` or ``torch.manual_seed``: one order for all."""
    return int(trainer.strategy.broadcast(torch.initial_seed()))


def place_of(trainer: Trainer | None) -> tuple[int, int]:
    """Returns the number of this process, and how many there are; without a Trainer there is one."""
    return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)


def add_up(trainer: Trainer, micro_batches: int) -> None:
    """Tells a Trainer how many micro-batches make an optimizer step.

    Raises:
        BadInputError: If it was told to add up another number.
    """
    if trainer.accumulate_grad_batches not in (1, micro_batches):
        raise BadInputError(
            f"the Trainer adds up {trainer.accumulate_grad_batches} batches, a step of this data has {micro_batches}",
            where="trainer.accumulate_grad_batches",
            expected="1, the default: the number follows from batch_size, micro_batch_size and the devices",
        )
    trainer.accumulate_grad_batches = micro_batches


def refuse_other_order(was: Mapping[str, int], now: Mapping[str, int]) -> None:
    """Compares what decides the order of the samples in a checkpoint's run with this one.

    Raises:
        BadInputError: If something differs: some samples would come twice, and some never.
    """
    for name, value in now.items():
        if was.get(name, value) != value:
            raise BadInputError(
                f"{name} was {was[name]} in the run of this checkpoint and is {value} now",
                where="checkpoint",
                expected="the order of samples that the run began with",
                hint="seed_everything(SEED) before the model is made" if name == "order_seed" else "",
            )
