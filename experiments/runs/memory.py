"""What training will take of the device's memory, said before weights load, and whether activations are recomputed."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from data_modules.instruction import InstructionDataModule
from experiments.configuration.cli import Experiment
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.parallel.costs import Devices, Engine, all_sharing
from lightning_m2pt.parallel.fully_sharded import FullyShardedStrategy
from lightning_m2pt.parallel.zero import ZeroStrategy
from lightning_m2pt.system.console import say
from lightning_m2pt.tuning.memory_estimate import USABLE_SHARE, MemoryEstimate, MicroBatchSize, device_memory
from lightning_m2pt.tuning.module import TuningModule, build_on_meta
from lightning_m2pt.tuning.module_memory import ALONE, Plan, estimate_of
from lightning_m2pt.tuning.proven_strategies import configured_names
from lightning_m2pt.tuning.sample_order import largest_even_part

GIGABYTE = 10**9
NAMES: dict[Engine, str] = {"ddp": "DDP", "fsdp2": "FSDP2", "zero2": "ZeRO 2", "zero3": "ZeRO 3"}


def decide_recomputation(
    experiment: Experiment,
    device: torch.device,
    micro_batch: MicroBatchSize,
    plan: Plan = ALONE,
    processes: int = 1,
) -> None:
    """Says what training will take, and settles ``activation_checkpointing: auto``; does nothing once weights are in.

    Args:
        experiment: Its backbone's setting becomes a decision.
        device: Where it will train.
        micro_batch: The largest one of a device.
        plan: The devices.
        processes: How many of the run are on this machine.

    Raises:
        BadInputError: If the base is to be shared out and does not name its units.
    """
    backbone = experiment.model.backbone
    if backbone.is_loaded:
        return
    counted = copy.deepcopy(experiment.model)  # built without memory and thrown away
    with torch.random.fork_rng(devices=[]):  # the run is seeded already
        build_on_meta(counted)
    estimate = estimate_of(counted, micro_batch, replace(plan, on_cpu=device.type == "cpu"))
    memory = device_memory(device, processes)
    if backbone.checkpointing_is_automatic:
        too_large = estimate.total(recomputes=False) > USABLE_SHARE * memory
        backbone.recompute_activations(too_large and can_recompute(experiment.model))
    has = f"{device.type} has {in_gigabytes(memory)}"
    for line in lines(estimate, has, backbone.shape.recomputes_activations, plan.devices):
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


def plan_of(trainer: Mapping[str, Any], number: int) -> Plan:
    """Returns what a Trainer's settings say about so many devices; nothing has to be installed for that.

    Args:
        trainer: The settings.
        number: Devices of all nodes.
    """
    strategy = trainer.get("strategy")
    settings = dict(strategy.get("init_args") or {}) if isinstance(strategy, Mapping) else {}
    [name] = configured_names(strategy)
    if name == FullyShardedStrategy.__name__:
        return Plan(all_sharing("fsdp2", number), bool(settings.get("reshard_after_forward", True)))
    if name == ZeroStrategy.__name__:
        return Plan(all_sharing("zero3" if settings.get("stage") == 3 else "zero2", number))
    return Plan(all_sharing("ddp", number))


def upper_bound(data: InstructionDataModule, number: int = 1) -> MicroBatchSize:
    """Returns the largest micro-batch that the settings allow on one of some devices, without reading any data."""
    samples = largest_even_part(-(-data.batch_size // number), data.micro_batch_size)
    rows = data.max_text_length - 1
    return MicroBatchSize(samples, rows, samples * rows)


def lines(estimate: MemoryEstimate, device: str, recomputes: bool, devices: Devices) -> list[str]:
    """Returns what people read: the sum and its parts, and the other choice."""
    activations = estimate.recomputed_activations if recomputes else estimate.activations
    gathered = f"gathered {in_gigabytes(estimate.gathered)}, " if estimate.gathered else ""
    parts = (
        f"weights {in_gigabytes(estimate.weights)}, {gathered}trained {in_gigabytes(estimate.trained)}, "
        f"activations {in_gigabytes(activations)}, logits {in_gigabytes(estimate.logits)}"
    )
    chosen, other = ("recomputed", "kept") if recomputes else ("kept", "recomputed")
    total, otherwise = (in_gigabytes(estimate.total(recomputes=each)) for each in (recomputes, not recomputes))
    where = "a device" if devices.number == 1 else f"on each of {devices.number} devices, {NAMES[devices.engine]}"
    return [
        f"memory       about {total} at most {where} ({parts}); {device}",
        f"             activations are {chosen}; {other}, it would be {otherwise}",
    ]


def in_gigabytes(size: int) -> str:
    """Returns a size as people read it."""
    return f"{size / GIGABYTE:.2f} GB"
