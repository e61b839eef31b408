"""Under which strategies no device has the whole base: every rank then has to run the same modules."""

from collections.abc import Mapping

from lightning.pytorch.strategies import Strategy

from lightning_m2pt.parallel.fully_sharded import FullyShardedStrategy
from lightning_m2pt.parallel.zero import ZeroStrategy


def shares_out_weights(strategy: Strategy) -> bool:
    """Tells whether a strategy shares out the frozen base."""
    return isinstance(strategy, FullyShardedStrategy) or (isinstance(strategy, ZeroStrategy) and strategy.zero_stage_3)


def would_share_out_weights(configured: object) -> bool:
    """Tells whether a configured strategy would: its short name, or class path and arguments."""
    if not isinstance(configured, Mapping):
        return False
    name = str(configured.get("class_path", "")).rpartition(".")[2]
    arguments = configured.get("init_args") or {}
    return name == FullyShardedStrategy.__name__ or (name == ZeroStrategy.__name__ and arguments.get("stage") == 3)


def would_be_zero(configured: object) -> bool:
    """Tells whether a configured strategy is DeepSpeed's, at any stage."""
    if not isinstance(configured, Mapping):
        return False
    return str(configured.get("class_path", "")).rpartition(".")[2] == ZeroStrategy.__name__
