"""The most memory that a tuning took: of its main process, and of that process's GPU."""

import resource
from pathlib import Path

import torch

PROCESS, GPU = "process", "gpu"
STATUS_FILE, HIGHEST_RESIDENT = Path("/proc/self/status"), "VmHWM:"
KIB = 1024


def peak_memory(device: torch.device) -> dict[str, int]:
    """Returns bytes: what was resident of this process at most, and what its tensors took on its GPU at most.

    Args:
        device: Where the model is tuned; on a CPU its tensors are part of the process.
    """
    found = {PROCESS: peak_resident_bytes()}
    if device.type == "cuda":
        found[GPU] = torch.cuda.max_memory_allocated(device)
    return found


def peak_resident_bytes() -> int:
    """Returns the most memory of this process that was resident since its program started."""
    if STATUS_FILE.is_file():
        for line in STATUS_FILE.read_text(encoding="utf-8").splitlines():
            if line.startswith(HIGHEST_RESIDENT):
                return int(line.split()[1]) * KIB
    # Where the kernel does not say: this one begins with what the process had that started us.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
