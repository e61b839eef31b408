"""Imports torchmetrics as far as it is used.

``import torchmetrics`` imports every metric there is, and for them transformers, scipy, torchvision and the compiler of
torch: half of what a command spends before it does anything. Lightning imports it always, and uses the base classes;
this project uses a mean. So the package's own ``__init__`` waits until a name is asked for that does not stand below:
then it runs, once, and everything is there as if it had run at first.

Importing this module installs that once per process. It imports nothing itself.
"""

import importlib
import logging
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

PACKAGE = "torchmetrics"
ABOUT = f"{PACKAGE}.__about__"
LOGGER = "_logger"
MODULES = {
    "Metric": f"{PACKAGE}.metric",
    "MetricCollection": f"{PACKAGE}.collections",
    "MeanMetric": f"{PACKAGE}.aggregation",
}
"""Names that Lightning and this project take from the package, and where they are written."""
FIRST = f"{PACKAGE}.utilities"
"""Imports the module of ``Metric`` and is imported by it: it has to come first."""


class TorchmetricsStart:
    """A meta path finder for one package, whose ``__init__`` is put off."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Finds torchmetrics on its first request, and leaves everything else to the others."""
        if name != PACKAGE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = PutOffLoader(spec.loader.name, spec.loader.path)
        return spec


class PutOffLoader(SourceFileLoader):
    """Loads a package without running its ``__init__``, until a name of it is asked for."""

    def exec_module(self, module: ModuleType) -> None:
        """Gives the package its version, and the way to everything else."""
        about = importlib.import_module(ABOUT)
        vars(module).update({name: value for name, value in vars(about).items() if name not in vars(module)})
        lock, has_run = threading.RLock(), False

        def get(name: str) -> Any:  # noqa: ANN401
            nonlocal has_run
            if name == LOGGER and not has_run:
                return logging.getLogger(PACKAGE)
            if name in MODULES and not has_run:
                importlib.import_module(FIRST)
                return getattr(importlib.import_module(MODULES[name]), name)
            with lock:
                # Dunder names are asked of every module by tools that walk through `sys.modules`.
                if not has_run and not name.startswith("__"):
                    has_run = True
                    super(PutOffLoader, self).exec_module(module)
            if name in vars(module):
                return vars(module)[name]
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = get  # type: ignore[method-assign]


if PACKAGE not in sys.modules and not any(isinstance(finder, TorchmetricsStart) for finder in sys.meta_path):
    sys.meta_path.insert(0, TorchmetricsStart())
