"""Small trainings on one device, on replicas and on shared-out weights, and what there is to compare of them."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.distributed
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from callbacks.gradient_check import GradientCheck
from callbacks.same_on_all_ranks import SameOnAllRanks
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.shortcuts import Shortcuts
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.trained_parameters import freeze_all_but_declared
from lightning_m2pt.parallel.fully_sharded import FullyShardedStrategy
from lightning_m2pt.tuning.module import TuningModule
from tests.support.ranks import on_ranks
from tests.support.small_training import Gradients, loader_of, small_trainer

Make = Callable[[], tuple[Backbone, Method]]
Steps = Sequence[Sequence[Batch]]
"""The micro-batches of every optimizer step."""


GATHERING = "all_gather_single" if hasattr(torch.distributed, "all_gather_single") else "all_gather_into_tensor"
"""What torch gathers a unit with; it got a new name in 2.13."""


@dataclass
class Trained:
    """What one rank has after a training.

    Attributes:
        tensors: The trained tensors by name.
        gradients: Of every step, as the optimizer took them.
        losses: Logged, of every step.
        share: Of the numbers in sharding units, how many this rank keeps.
        gathered: Bytes of every gathering of weights, of the first two steps.
        most_whole: How many units were whole at once, at most.
        exchanged: Bytes of every exchange of gradients.
    """

    tensors: dict[str, Tensor]
    gradients: list[dict[str, Tensor]]
    losses: list[float]
    share: float = 1.0
    gathered: list[int] = field(default_factory=list)
    most_whole: int = 0
    exchanged: list[int] = field(default_factory=list)


class Losses(Callback):
    """Keeps the logged losses, and forgets what was counted before the first step."""

    def __init__(self, counted: "Counted") -> None:
        self.losses: list[float] = []
        self.counted = counted

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.counted.gathered.clear()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.losses.append(float(trainer.callback_metrics["train/loss"]))


def train(
    make: Make,
    steps: Steps,
    strategy: Callable[[], Strategy] | None,
    shortcuts: Shortcuts = Shortcuts(),  # noqa: B008
    **settings: Any,
) -> Trained:
    """Trains on this rank's share of every step's micro-batches, one step after the other.

    Args:
        make: Returns the same backbone and method on each rank; one that is not loaded is loaded as the strategy does.
        steps: All ranks'.
        strategy: None: one process.
        shortcuts: What a replica leaves out.
        **settings: Of the Trainer.
    """
    ranks, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    backbone, method = make()
    module = TuningModule(backbone, method, shortcuts=shortcuts)
    if backbone.is_loaded:
        attach_built(module)
    counted = Counted(backbone)
    gradients, losses = Gradients(), Losses(counted)
    share = len(steps[0]) // ranks
    own = [batch for step in steps for batch in step[rank * share : (rank + 1) * share]]
    chosen = strategy() if strategy else "auto"
    callbacks = [SameOnAllRanks(every_n_steps=1), GradientCheck(), gradients, losses]
    trainer = small_trainer(
        *callbacks,
        strategy=chosen,
        devices=ranks,
        max_steps=len(steps),
        accumulate_grad_batches=share,
        use_distributed_sampler=False,
        **settings,
    )
    with counted:
        trainer.fit(module, loader_of(own))
    tensors = {name: each.detach().clone() for name, each in method.named_tensors().items()}
    result = Trained(tensors, gradients.steps, losses.losses)
    if backbone.runs_in_lockstep:
        result.share, result.gathered = local_share(backbone.sharding_units()), counted.gathered
        result.most_whole, result.exchanged = counted.most_whole, counted.exchanged
    return result


def attach_built(module: TuningModule) -> None:
    """Makes and attaches the tensors of a method on a backbone that was built in memory."""
    backbone, method = module.backbone, module.method
    method.build(backbone, torch.Generator().manual_seed(7))
    if backbone.dtype_name == "float64" and not isinstance(method, LayerNormTuning):  # whose norms compute in float32
        method.double()  # so that what differs is a fault and not rounding
    freeze_all_but_declared(module, method)
    method.attach(backbone)


def local_share(units: Sequence[nn.Module]) -> float:
    """Returns which part of the frozen numbers in these units this rank keeps."""
    frozen = [each for unit in units for each in unit.parameters() if not each.requires_grad]
    return sum(local_numbers(each) for each in frozen) / sum(getattr(each, "ds_numel", each.numel()) for each in frozen)


def local_numbers(tensor: Tensor) -> int:
    """Returns how many numbers of a tensor this rank keeps; DeepSpeed's are kept beside an empty one."""
    kept: Tensor = getattr(tensor, "ds_tensor", tensor)
    return kept.to_local().numel() if isinstance(kept, DTensor) else kept.numel()


class Counted:
    """Counts, as long as it lasts, what goes over the wire and how many units are whole at once."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.gathered: list[int] = []
        self.exchanged: list[int] = []
        self.most_whole = 0

    def __enter__(self) -> "Counted":
        self._gather, self._reduce = getattr(torch.distributed, GATHERING), torch.distributed.all_reduce

        def gather(output: Tensor, *given: Any, **named: Any) -> Any:
            self.gathered.append(output.numel() * output.itemsize)
            whole = [unit for unit in self.backbone.sharding_units() if is_whole(unit)]
            self.most_whole = max(self.most_whole, 1 + len(whole))
            return self._gather(output, *given, **named)

        def reduce(tensor: Tensor, *given: Any, **named: Any) -> Any:
            self.exchanged.append(tensor.numel() * tensor.itemsize)
            return self._reduce(tensor, *given, **named)

        setattr(torch.distributed, GATHERING, gather)
        torch.distributed.all_reduce = reduce
        return self

    def __exit__(self, *_: object) -> None:
        setattr(torch.distributed, GATHERING, self._gather)
        torch.distributed.all_reduce = self._reduce


def is_whole(unit: nn.Module) -> bool:
    """Tells whether a shared-out unit is gathered at the moment."""
    frozen = [each for each in unit.parameters() if not each.requires_grad]
    return isinstance(unit, FSDPModule) and not any(isinstance(each, DTensor) for each in frozen)


def sharded() -> FullyShardedStrategy:
    """Returns the strategy on CPUs."""
    return FullyShardedStrategy(process_group_backend="gloo")


def replicated() -> DDPStrategy:
    """Returns DDP on CPUs."""
    return DDPStrategy(process_group_backend="gloo")


def on_both(
    make: Make,
    steps: Steps,
    ranks: int = 2,
    timeout: float = 120,
    strategy: Callable[[], Strategy] = sharded,
    **settings: Any,
) -> tuple[Trained, Trained]:
    """Returns the first rank's training with shared-out weights, and that of one process over the same micro-batches.

    All ranks have the same tensors, or this is an error.
    """
    several = on_ranks(ranks, train, make, steps, strategy, timeout=timeout)
    for other in several[1:]:
        for name, tensor in several[0].tensors.items():
            assert torch.equal(tensor, other.tensors[name]), name
    [alone] = on_ranks(1, train, make, steps, None, timeout=timeout)
    return several[0], alone


def compare(found: Trained, expected: Trained, tolerance: float) -> None:
    """Compares losses, every gradient of every step, and the trained tensors, each relative to its largest number.

    Tensors may be off by ten times as much: AdamW divides by a gradient's own size, so that what rounding does to the
    smallest ones moves their numbers as far as others (2e-5 was seen on one make of processor).
    """
    assert found.losses == pytest.approx(expected.losses, rel=tolerance)
    assert len(found.gradients) == len(expected.gradients)
    for step, (ours, theirs) in enumerate(zip(found.gradients, expected.gradients, strict=True)):
        assert set(ours) == set(theirs)
        for name, gradient in theirs.items():
            difference = (ours[name] - gradient).abs().max() / gradient.abs().max().clamp(min=1e-30)
            assert difference <= tolerance, f"step {step}: gradient of {name} differs by {difference:.1e}"
    for name, tensor in expected.tensors.items():
        difference = (found.tensors[name] - tensor).abs().max() / tensor.abs().max().clamp(min=1e-30)
        assert difference <= 10 * tolerance, f"{name} differs by {difference:.1e}"
