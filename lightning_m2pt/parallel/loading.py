"""How a strategy's processes get the frozen weights: each reads what it keeps, and nothing is sent."""

from typing import Protocol, runtime_checkable

import torch
from lightning.pytorch.strategies import Strategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.methods.base import Method


@runtime_checkable
class LoadsInShares(Protocol):
    """A strategy under which each process keeps a share of the frozen weights alone."""

    def load_in_shares(self, backbone: Backbone, method: Method) -> None:
        """Loads this process's share of a base, straight to torch's device of the moment.

        Args:
            backbone: Not loaded.
            method: What will be built on it.
        """


def load(backbone: Backbone, method: Method, strategy: Strategy | None) -> None:
    """Loads the frozen weights straight to where a strategy wants them, each process its share.

    Args:
        backbone: Not loaded.
        method: What will be built on it.
        strategy: The Trainer's; None without one: everything goes to torch's device of the moment.

    Raises:
        BadInputError: If weights are not what they should be; in the process alone that has read them.
    """
    if strategy is None:
        backbone.load()
        return
    with torch.device(strategy.root_device):
        if isinstance(strategy, LoadsInShares):
            strategy.load_in_shares(backbone, method)
        else:
            backbone.load()


def leave_frozen_alone(module: nn.Module) -> None:
    """Lets DDP send nothing but what is trained: each process has read the frozen weights, whose hashes were compared.

    Otherwise DDP sends the whole base from the first process to all others at the start, through copies of it that
    double the memory of each while they last, and its tables again before every pass.
    """
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    buffers = [name for name, _ in module.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, [*frozen, *buffers])
