"""The library keeps norms, rotations and softmax in float32 whatever the type is; here they are float64."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn


class Exact(ModuleType):
    """torch, whose float32 is float64."""

    def __getattr__(self, name: str) -> Any:
        return torch.float64 if name == "float32" else getattr(torch, name)


@contextmanager
def float64_islands(monkeypatch: pytest.MonkeyPatch, *models: nn.Module) -> Iterator[None]:
    """Gives every modelling file that these models come from such a torch."""
    own_float = Tensor.float
    files = {type(module).__module__ for model in models for module in model.modules()}
    with monkeypatch.context() as patch:
        for name in sorted(files):
            if name.startswith("transformers."):
                patch.setattr(sys.modules[name], "torch", Exact("torch"), raising=False)
        patch.setattr(Tensor, "float", lambda rows: rows if rows.dtype == torch.float64 else own_float(rows))
        yield
