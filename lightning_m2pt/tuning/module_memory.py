"""The memory estimate of a module that was built without memory, as training and ``m2pt models show`` need it."""

import torch
from torch import nn

from lightning_m2pt.tuning.memory_estimate import MemoryEstimate, MicroBatchSize, estimated_memory
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.parameter_counts import parameter_counts


def estimate_of(counted: TuningModule, micro_batch: MicroBatchSize) -> MemoryEstimate:
    """Estimates a module that was built on the meta device."""
    backbone, method = counted.backbone, counted.method
    numbers = parameter_counts(counted.method.parameter_parts(), backbone.base_parameters())
    return estimated_memory(
        backbone.shape,
        method.attachment(frozenset()),
        method.places(),
        (numbers["base"], numbers["trained"]),
        getattr(torch, backbone.dtype_name),
        micro_batch,
        backbone.base_bytes(),
        hidden_width(backbone.projector),
    )


def hidden_width(connector: nn.Module) -> int:
    """Returns how many numbers a row has in the layers of a connector between its first and its last one."""
    return sum([part.out_features for part in connector.modules() if isinstance(part, nn.Linear)][:-1])
