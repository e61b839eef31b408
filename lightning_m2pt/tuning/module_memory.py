"""The memory estimate of a module that was built without memory, as training and ``m2pt models show`` need it."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.parallel.costs import Devices, Model, Unit, held_bytes
from lightning_m2pt.tuning.memory_estimate import MemoryEstimate, MicroBatchSize, estimated_memory
from lightning_m2pt.tuning.module import TuningModule, regularisers_of
from lightning_m2pt.tuning.parameter_counts import parameter_counts


@dataclass(frozen=True)
class Plan:
    """Which devices a module is tuned on.

    Attributes:
        devices: How many, and what they share.
        reshards: Whether a layer that is shared out is given up between its forward and its backward pass.
        on_cpu: Whether they are CPUs.
    """

    devices: Devices
    reshards: bool = True
    on_cpu: bool = False


ALONE = Plan(Devices("ddp", 1))
"""One device that holds everything."""


def estimate_of(counted: TuningModule, micro_batch: MicroBatchSize, plan: Plan = ALONE) -> MemoryEstimate:
    """Estimates one device's part of a module that was built on the meta device.

    Args:
        counted: The module.
        micro_batch: The largest one of a device.
        plan: The devices.

    Raises:
        BadInputError: If the base is to be shared out and does not name its units.
    """
    backbone, method = counted.backbone, counted.method
    numbers = parameter_counts(counted.method.parameter_parts(), backbone.base_parameters())
    whole = estimated_memory(
        backbone.shape,
        method.attachment(frozenset()),
        method.places(),
        (numbers["base"], numbers["trained"]),
        getattr(torch, backbone.dtype_name),
        micro_batch,
        backbone.base_bytes(),
        hidden_width(backbone.projector),
        on_cpu=plan.on_cpu,
    )
    base = base_in_units(backbone, numbers["trained"], plan.devices)
    held = held_bytes(base, plan.devices)
    gathered = held.in_flight
    if gathered and not plan.reshards:
        gathered = sum(unit.size for unit in base.units) + max(unit.size for unit in base.units)
    weights, kept = bytes_of_regularisers(counted, micro_batch)
    factor, matrices = method.kept_factor(), method.kept_weight_bytes()
    return replace(
        whole,
        weights=held.base + weights + method.frozen_bytes(),
        gathered=gathered,
        trained=held.trained,
        activations=round(factor * whole.activations) + kept + sum(matrices.values()),
        recomputed_activations=round(factor * whole.recomputed_activations) + kept + max(matrices.values(), default=0),
    )


def bytes_of_regularisers(counted: TuningModule, micro_batch: MicroBatchSize) -> tuple[int, int]:
    """Returns what the loss's further terms hold all the time, and what they keep of a micro-batch.

    A tower's pass of which nothing is kept takes no more than the pass of the loss, which comes after it.
    """
    shape, terms = counted.backbone.shape, regularisers_of(counted)
    rows = shape.connected_patches if micro_batch.picture_rows is None else micro_batch.picture_rows
    pictures, rows = micro_batch.samples * micro_batch.tiles, micro_batch.samples * rows
    return sum(each.held_bytes() for each in terms), sum(each.kept_bytes(shape, pictures, rows) for each in terms)


def base_in_units(backbone: Backbone, trained: int, devices: Devices) -> Model:
    """Returns what a frozen base consists of, as its devices share it out.

    Args:
        backbone: Built on the meta device, no method attached.
        trained: Trained numbers.
        devices: The devices.

    Raises:
        BadInputError: If the base is to be shared out and does not name its units.
    """
    if devices.sharing == 1:
        return Model((), backbone.base_bytes(), trained)
    size: int = getattr(torch, backbone.dtype_name).itemsize
    numbers = [sum(each.numel() for each in unit.parameters()) for unit in backbone.sharding_units()]
    kept = backbone.base_bytes() - size * sum(numbers)
    return Model(tuple(Unit(size * each) for each in numbers), kept, trained, size)


def hidden_width(connector: nn.Module) -> int:
    """Returns how many numbers a row has in the layers of a connector between its first and its last one."""
    return sum([part.out_features for part in connector.modules() if isinstance(part, nn.Linear)][:-1])
