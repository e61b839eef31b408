"""ZeRO without GPUs, for the tests alone."""

import warnings
from typing import Literal

import deepspeed.ops
import torch
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch.strategies import DeepSpeedStrategy
from typing_extensions import override

from lightning_m2pt.parallel.zero import ZeroStrategy


class CpuZeroStrategy(ZeroStrategy):
    """The shipped strategy over gloo: DeepSpeed's steps, partitions and collectives are its own."""

    def __init__(self, stage: Literal[2] = 2) -> None:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it is compiled first, for a minute
        super().__init__(stage)

    @property
    @override
    def root_device(self) -> torch.device:
        return torch.device("cpu", 0)  # the engine asks for the number of the device

    @override
    def refuse_without_gpu(self) -> None:
        pass

    @override
    def setup_environment(self) -> None:
        super(DeepSpeedStrategy, self).setup_environment()

    @override
    def setup_distributed(self) -> None:
        warnings.filterwarnings("ignore", category=FutureWarning)
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()
