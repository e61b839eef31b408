"""Whether the accelerator that a configuration names is here, known before anything is built."""

from typing import Any

from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

from lightning_m2pt.errors import BadInputError, EnvironmentFailure

GPUS = {"gpu": (CUDAAccelerator, MPSAccelerator), "cuda": (CUDAAccelerator,), "mps": (MPSAccelerator,)}
OTHERS = ("auto", "cpu")


def check_accelerator(name: Any) -> None:
    """Looks whether an accelerator can be used.

    Args:
        name: ``trainer.accelerator``; None leaves it to Lightning.

    Raises:
        BadInputError: If it is none that this project runs on.
        EnvironmentFailure: If there is no such device, or no torch that can use it.
    """
    where = "trainer.accelerator"
    if name is not None and name not in (*GPUS, *OTHERS):
        raise BadInputError(f"{name!r:.40} is not supported", where=where, expected=", ".join((*OTHERS, *GPUS)))
    if name in GPUS and not any(kind.is_available() for kind in GPUS[name]):
        raise EnvironmentFailure(
            f"no {name} is found here",
            where=where,
            expected="a GPU, its driver, and a torch that is built for it",
            hint="`m2pt doctor` says what is here; --trainer.accelerator cpu does without",
        )
