"""Objects that Python hands over, described as a configuration would: checks and a run's record read that."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import timedelta
from pathlib import PurePath
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import LayerSync, Precision
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy

from experiments.trainer.logger_settings import is_key
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.methods.base import Method
from lightning_m2pt.tuning.regularisers.base import Regulariser
from lightning_m2pt.tuning.regularisers.teacher import Teacher

OF_COMPONENTS = (
    Backbone,
    Method,
    LightningDataModule,
    Callback,
    Logger,
    Profiler,
    Strategy,
    CheckpointIO,
    ClusterEnvironment,
    LayerSync,
    Precision,
    Regulariser,
    Teacher,
)
"""What a configuration names by class path and arguments."""


class Described(dict[str, Any]):
    """An object as a component: class path and arguments, as far as they can be read off it.

    An argument is what the object keeps under its name, or with ``_`` in front; properties are not asked, which may
    compute or open something. What cannot be read off is left out, and so are keys to services.

    Args:
        made: The object.
    """

    def __init__(self, made: Any) -> None:
        self.kind = type(made)
        kept = {**vars(made).get("_modules", {}), **vars(made)}
        arguments = {
            name: described(kept.get(name, kept.get(f"_{name}")))
            for name in inspect.signature(self.kind).parameters
            if (name in kept or f"_{name}" in kept) and not is_key(name, kept.get(name, kept.get(f"_{name}")))
        }
        if isinstance(made, Method):
            arguments |= described(made.adapter_config())
        super().__init__(class_path=f"{self.kind.__module__}.{self.kind.__qualname__}", init_args=arguments)


def described(value: Any) -> Any:
    """Returns a value as a configuration would hold it; of an object that is no component its class alone."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    if isinstance(value, torch.dtype | PurePath | timedelta):
        return str(value).removeprefix("torch.")
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: described(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, OF_COMPONENTS):
        return Described(value)
    kind = value if isinstance(value, type) else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
