"""What a measurement was made with, stored beside its figures."""

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "transformers", "open_clip_torch", "peft", "lightning", "pillow", "numpy")


def machine() -> dict[str, object]:
    """Returns processor, device, threads, versions and today's date."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor_name(),
        "instruction_set": instruction_set(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def instruction_set() -> str:
    """Returns what torch's kernels are chosen by, and AMX where the processor multiplies bfloat16 by it."""
    chosen = torch.backends.cpu.get_cpu_capability()
    return f"{chosen} and AMX" if torch.cpu.get_capabilities().get("amx_bf16") else chosen


def processor_name() -> str:
    """Returns the processor's name as the kernel has it, or the machine type where it says nothing."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def made_with_line(made_with: Mapping[str, Any]) -> str:
    """Returns one line: date, machine, versions."""
    versions = ", ".join(f"{name} {version}" for name, version in made_with["versions"].items())
    machine = f"{made_with['processor']} ({made_with['cores']} cores, {made_with['instruction_set']})"
    device = "" if made_with["device"] == "none" else f", {made_with['device']}"
    return f"{made_with['date']}, {machine}{device}; {versions}."
