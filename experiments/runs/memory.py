"""What training will take of the device's memory, said before weights load, and whether activations are recomputed."""

import copy

import torch

from data_modules.instruction import InstructionDataModule
from experiments.configuration.cli import Experiment
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.console import say
from lightning_m2pt.tuning.memory_estimate import USABLE_SHARE, MemoryEstimate, MicroBatchSize, device_memory
from lightning_m2pt.tuning.module import TuningModule, build_on_meta
from lightning_m2pt.tuning.module_memory import estimate_of
from lightning_m2pt.tuning.sample_order import largest_even_part

GIGABYTE = 10**9


def decide_recomputation(experiment: Experiment, device: torch.device, micro_batch: MicroBatchSize) -> None:
    """Says what training will take, and settles ``activation_checkpointing: auto``; does nothing once weights are in.

    Args:
        experiment: Its backbone's setting becomes a decision.
        device: Where it will train.
        micro_batch: The largest one.
    """
    backbone = experiment.model.backbone
    if backbone.is_loaded:
        return
    counted = copy.deepcopy(experiment.model)  # built without memory and thrown away
    with torch.random.fork_rng(devices=[]):  # the run is seeded already
        build_on_meta(counted)
    estimate, memory = estimate_of(counted, micro_batch), device_memory(device)
    if backbone.checkpointing_is_automatic:
        too_large = estimate.total(recomputes=False) > USABLE_SHARE * memory
        backbone.recompute_activations(too_large and can_recompute(experiment.model))
    for line in lines(estimate, f"{device.type} has {in_gigabytes(memory)}", backbone.shape.recomputes_activations):
        say(line)


def refuse_base_larger_than_device(experiment: Experiment, device: torch.device) -> None:
    """Looks whether what is tuned on several devices at once can be evaluated, where every device holds all of it.

    Args:
        experiment: Not loaded.
        device: Where it will answer.

    Raises:
        BadInputError: If the frozen model alone does not fit there.
    """
    counted = copy.deepcopy(experiment.model)
    with torch.random.fork_rng(devices=[]):
        build_on_meta(counted)
    needed, memory = counted.backbone.base_bytes(), device_memory(device)
    if needed > USABLE_SHARE * memory:
        raise BadInputError(
            f"the evaluation holds the whole model on every device: {in_gigabytes(needed)}, and this {device.type} "
            f"has {in_gigabytes(memory)}",
            where="trainer.strategy",
            expected="a model that one device can hold",
            hint="`m2pt fit` tunes it all the same; evaluate its adapter on a larger device, or on the base in nf4",
        )


def can_recompute(model: TuningModule) -> bool:
    """Tells whether the method works with activation checkpointing."""
    shape = copy.copy(model.backbone.shape)
    shape.recomputes_activations = True
    try:
        model.method.check(shape)
    except BadInputError:
        return False
    return True


def upper_bound(data: InstructionDataModule) -> MicroBatchSize:
    """Returns the largest micro-batch that the settings allow on one device, without reading any data."""
    samples = largest_even_part(data.batch_size, data.micro_batch_size)
    rows = data.max_text_length - 1
    return MicroBatchSize(samples, rows, samples * rows)


def lines(estimate: MemoryEstimate, device: str, recomputes: bool) -> list[str]:
    """Returns what people read: the sum and its parts, and the other choice."""
    activations = estimate.recomputed_activations if recomputes else estimate.activations
    parts = (
        f"weights {in_gigabytes(estimate.weights)}, trained {in_gigabytes(estimate.trained)}, "
        f"activations {in_gigabytes(activations)}, logits {in_gigabytes(estimate.logits)}"
    )
    chosen, other = ("recomputed", "kept") if recomputes else ("kept", "recomputed")
    total, otherwise = (in_gigabytes(estimate.total(recomputes=each)) for each in (recomputes, not recomputes))
    return [
        f"memory       about {total} at most a device ({parts}); {device}",
        f"             activations are {chosen}; {other}, it would be {otherwise}",
    ]


def in_gigabytes(size: int) -> str:
    """Returns a size as people read it."""
    return f"{size / GIGABYTE:.2f} GB"
