"""Looks whether a checkpoint's content belongs to the model that goes on from it, before anything is taken over.

A checkpoint whose checksums are right may still have been written by anybody. Tensors of another shape would stop deep
inside the libraries, those of another type be rounded without a word, and counters of another kind send the loops
anywhere.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_m2pt.errors import BadInputError

COUNTERS = ("epoch", "global_step")
TABLES = ("state_dict", "loops", "callbacks")
LISTS = ("optimizer_states", "lr_schedulers")
LOOP_COUNTERS = ("fit_loop.epoch_loop.batch_progress", "fit_loop.epoch_progress")
"""What Lightning counts while it trains, as far as training goes on from it."""
LOOP_STATE = "epoch_loop.state_dict"
STAGES = ("ready", "started", "processed", "completed")


def check_content(checkpoint: Mapping[str, Any], trained: Mapping[str, Tensor]) -> None:
    """Compares a checkpoint with the tensors that are trained.

    Args:
        checkpoint: What was read.
        trained: The trained tensors by name.

    Raises:
        BadInputError: Naming the first thing that is missing, of another kind, shape or type, or not finite.
    """
    for keys, kind in ((COUNTERS, int), (TABLES, dict), (LISTS, list)):
        for key in keys:
            if type(checkpoint.get(key)) is not kind or (kind is int and checkpoint[key] < 0):
                raise bad_checkpoint(
                    f"{key} is {checkpoint.get(key)!r:.40}", f"{'a count' if kind is int else kind.__name__}"
                )
    saved = checkpoint["state_dict"]
    if set(saved) != set(trained):
        first = sorted(map(str, set(saved) ^ set(trained)))[0]
        raise bad_checkpoint(
            f"tensor {first:.160} is {'not trained here' if first in saved else 'missing'}",
            "a checkpoint of this method and backbone",
        )
    for name, tensor in trained.items():
        check_tensor(f"tensor {name}", saved[name], tensor)
    for place, value, like in optimizer_moments(checkpoint["optimizer_states"], list(trained.values())):
        check_tensor(place, value, like)
    for place in LOOP_COUNTERS:
        check_counters(place, checkpoint["loops"])
    if not isinstance(checkpoint["loops"]["fit_loop"].get(LOOP_STATE), dict):
        raise bad_checkpoint(f"loops: fit_loop.{LOOP_STATE} is no table", "Lightning's own")
    if not checkpoint["global_step"]:
        raise bad_checkpoint("global_step is 0", "at least one step")


def check_tensor(name: str, saved: object, like: Tensor) -> None:
    """Raises BadInputError unless a saved value is a finite tensor of a shape and type."""
    if not isinstance(saved, Tensor):
        raise bad_checkpoint(f"{name} is a {type(saved).__name__}", "a tensor")
    if saved.shape != like.shape or saved.dtype != like.dtype:
        raise bad_checkpoint(f"{name} is {form_of(saved)}", form_of(like))
    if not bool(torch.isfinite(saved).all()):
        raise bad_checkpoint(f"{name} holds numbers that are not finite", "finite numbers")


def form_of(tensor: Tensor) -> str:
    """Returns a tensor's shape and type in words."""
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def optimizer_moments(states: list[Any], trained: list[Tensor]) -> Iterator[tuple[str, object, Tensor]]:
    """Yields (place, value, tensor it must be like) of everything that optimizers keep of the trained tensors.

    Which of the tensors a state belongs to is the optimizer's own order; here it must have the shape of one of them,
    the same in all its parts.

    Raises:
        BadInputError: If a state is of another form.
    """
    for state in states:
        if not (isinstance(state, dict) and isinstance(state.get("state"), dict) and "param_groups" in state):
            raise bad_checkpoint("an optimizer's state is of another form", "state and param_groups")
        for number, kept in state["state"].items():
            if not isinstance(kept, dict):
                raise bad_checkpoint(f"the optimizer keeps a {type(kept).__name__} of tensor {number!r:.20}", "a table")
            parts = {key: value for key, value in kept.items() if key != "step" and value is not None}
            shapes = {tuple(value.shape) if isinstance(value, Tensor) else None for value in parts.values()}
            like = next((tensor for tensor in trained if shapes <= {tuple(tensor.shape)}), None)
            if like is None:
                raise bad_checkpoint(
                    f"the optimizer keeps {sorted(map(str, shapes))} of tensor {number!r:.20}", "its shape"
                )
            for key, value in parts.items():
                yield f"the optimizer's {key} of tensor {number!r:.20}", value, like


def check_counters(place: str, loops: Mapping[str, Any]) -> None:
    """Raises BadInputError unless a loop's counters are counts."""
    loop, _, name = place.partition(".")
    progress = loops.get(loop, {}).get(name) if isinstance(loops.get(loop), dict) else None
    for period in ("total", "current"):
        counts = progress.get(period) if isinstance(progress, dict) else None
        if not isinstance(counts, dict) or any(type(counts.get(key)) is not int or counts[key] < 0 for key in STAGES):
            raise bad_checkpoint(f"loops: {place}: {period} is {counts!r:.60}", f"counts of {', '.join(STAGES)}")


def bad_checkpoint(what: str, expected: str) -> BadInputError:
    """Returns the error about a checkpoint that training cannot go on from."""
    return BadInputError(
        what, where="checkpoint", expected=expected, hint="take an older checkpoint, or start over with --force"
    )
