"""Whether the accelerator and the devices that a configuration names are here, known before anything is read."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

from lightning_m2pt.errors import BadInputError, EnvironmentFailure

GPUS = {"gpu": (CUDAAccelerator, MPSAccelerator), "cuda": (CUDAAccelerator,), "mps": (MPSAccelerator,)}
OTHERS = ("auto", "cpu")
VISIBLE = "CUDA_VISIBLE_DEVICES"


def check_accelerator(name: Any, environment: Mapping[str, str]) -> None:
    """Looks whether an accelerator can be used.

    Args:
        name: ``trainer.accelerator``; None leaves it to Lightning.
        environment: Environment variables.

    Raises:
        BadInputError: If it is none that this project runs on.
        EnvironmentFailure: If there is no such device, or no torch that can use it.
    """
    where = "trainer.accelerator"
    if name is not None and name not in (*GPUS, *OTHERS):
        raise BadInputError(f"{name!r:.40} is not supported", where=where, expected=", ".join((*OTHERS, *GPUS)))
    if name in GPUS and not any(kind.is_available() for kind in GPUS[name]):
        hidden = environment.get(VISIBLE)
        raise EnvironmentFailure(
            f"no {name} is found here" + (f", where {VISIBLE} is {hidden!r:.40}" if hidden is not None else ""),
            where=where,
            expected="a GPU, its driver, and a torch that is built for it",
            hint="`m2pt doctor` says what is here; --trainer.accelerator cpu does without",
        )


def check_devices(name: Any, devices: int | list[str] | None, environment: Mapping[str, str]) -> None:
    """Looks whether as many devices as are asked for, or those very ones, are on this node.

    Args:
        name: ``trainer.accelerator``; None leaves it to Lightning.
        devices: How many, or their numbers; None leaves it to Lightning.
        environment: Environment variables.

    Raises:
        BadInputError: If they are not, or one process could not see several of them.
    """
    where = "trainer.devices"
    if name not in ("cuda", "gpu") and not (name in (None, "auto") and CUDAAccelerator.is_available()):
        if isinstance(devices, list) and len(devices) > 1 and name != "mps":
            raise BadInputError(
                f"{', '.join(devices)} are numbers of GPUs",
                where=where,
                expected=f"{len(devices)}, a number of processes",
            )
        return
    there = CUDAAccelerator.auto_device_count()
    wanted = [int(device) for device in devices] if isinstance(devices, list) else list(range(devices or 0))
    if missing := [number for number in wanted if number >= there]:
        raise BadInputError(
            f"GPU {missing[0]}, counted from 0, is asked for, and {there} are here",
            where=where,
            expected=f"at most {there}" if isinstance(devices, int) else f"numbers below {there}",
            hint=f"{VISIBLE} is {environment[VISIBLE]!r:.60}" if VISIBLE in environment else "",
        )
    if len(wanted) > 1 and environment.get(VISIBLE, "").startswith("MIG-"):
        raise BadInputError(
            f"{len(wanted)} devices are asked for, and CUDA shows a process one MIG instance",
            where=where,
            expected="1",
            hint=f"{VISIBLE} names MIG instances; whole GPUs can work together",
        )


def devices_left_open(name: Any, devices: int | list[str] | None) -> int:
    """Returns how many GPUs of this node Lightning would take where the settings leave it open; else 1.

    Args:
        name: ``trainer.accelerator``; None leaves it to Lightning.
        devices: How many, or their numbers; None leaves it to Lightning.
    """
    takes_gpus = name in ("cuda", "gpu") or (name in (None, "auto") and CUDAAccelerator.is_available())
    return max(CUDAAccelerator.auto_device_count(), 1) if takes_gpus and devices is None else 1
