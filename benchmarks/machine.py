"""What a measurement was made with."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("torch", "transformers", "open_clip_torch", "peft", "lightning")


def machine() -> dict[str, object]:
    """Returns processor, device, versions and today's date."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": names[0] if names else platform.machine(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }
