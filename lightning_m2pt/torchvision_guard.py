"""Lets CPU-only torch and PyPI's torchvision live in one environment.

PyPI's torchvision wheels are linked against CUDA. Beside a CPU-only torch their compiled part does not load, and
two unguarded registrations (``nms`` and ``qnms`` in torchvision 0.28) then end in ``operator torchvision::nms does
not exist``: ``lightning``, ``torchmetrics``, ``open_clip`` and ``transformers`` all fail to import. Declaring the two
operator schemas before torchvision is imported cures it. Nothing in this project calls these operators, and calling
one still raises torch's own "not implemented" error.

Importing this module installs the guard once per process. It imports nothing itself, so it costs nothing until
somebody imports torchvision, and it does nothing where torch was built with CUDA.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

UNGUARDED_OPERATORS = ("nms", "qnms")
OPERATOR_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class TorchvisionGuard:
    """A meta path finder that finds nothing, and declares the operator schemas when torchvision is first sought."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Declares the schemas on the first request for torchvision; always leaves finding it to the others."""
        if name == "torchvision":
            sys.meta_path.remove(self)
            declare_missing_operators()
        return None


def declare_missing_operators() -> None:
    """Declares torchvision's two unguarded operator schemas, unless torch has CUDA or they exist already."""
    import torch

    if torch.version.cuda is not None:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in UNGUARDED_OPERATORS:
        if not hasattr(torch.ops.torchvision, operator):
            library.define(operator + OPERATOR_SIGNATURE)
    # A Library undoes its declarations when it is garbage collected: torch outlives everything that needs them.
    torch._torchvision_schema_library = library  # type: ignore[attr-defined]


if "torchvision" not in sys.modules and not any(isinstance(finder, TorchvisionGuard) for finder in sys.meta_path):
    sys.meta_path.insert(0, TorchvisionGuard())
