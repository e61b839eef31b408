"""The state of every random generator of a process, as JSON-able values."""

import random
from typing import Any

import numpy
import torch
from torch import Tensor

from lightning_m2pt.errors import BadInputError


def rng_state() -> dict[str, Any]:
    """Returns the states of Python's, numpy's global, torch's CPU and each CUDA generator."""
    version, numbers, gauss = random.getstate()
    legacy = numpy.random.get_state(legacy=False)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": {
            "key": legacy["state"]["key"].tolist(),
            "pos": int(legacy["state"]["pos"]),
            "has_gauss": int(legacy["has_gauss"]),
            "gauss": float(legacy["gauss"]),
        },
        "torch": _hex(torch.get_rng_state()),
        "cuda": [_hex(state) for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Sets all generators to a state that ``rng_state`` returned; CUDA's as far as there are devices for them.

    Raises:
        BadInputError: If it is of another form.
    """
    try:
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))
        legacy = state["numpy"]
        key = numpy.array(legacy["key"], dtype=numpy.uint32)
        numpy.random.set_state(("MT19937", key, legacy["pos"], legacy["has_gauss"], legacy["gauss"]))
        torch.set_rng_state(_bytes(state["torch"]))
        for device, text in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(_bytes(text), device)
    except (LookupError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise BadInputError(
            f"the random generators' states are of another form ({type(error).__name__}: {error})"[:200],
            where="checkpoint",
            expected="what rng_state returned",
            hint="take an older checkpoint, or start over with --force",
        ) from error


def _hex(state: Tensor) -> str:
    return state.numpy().tobytes().hex()


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
