"""What a measurement was made on, stored beside its figures."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "lightning", "transformers", "open_clip_torch", "pillow", "numpy")


def measured_on() -> dict[str, Any]:
    """Returns the processor, its instruction set as torch uses it, threads, versions and the date."""
    return {
        "processor": processor_name(),
        "logical_processors": os.cpu_count(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in PACKAGES},
        "date": datetime.now(UTC).date().isoformat(),
    }


def processor_name() -> str:
    """Returns the processor's name as the kernel has it, or the machine type where it says nothing."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
