"""Prompts that move alone in the first steps of a run, before what else a method trains begins.

A prompt starts from noise, and what is trained beside it would begin by answering that noise. In the first steps only
prompts move. The other parts take no part in a step until they begin: no moments, no decay, no count of steps, no share
in the norm that clipping limits. Their rates warm up when they begin, and fall over what is left of the run.
"""

import math
from collections.abc import Callable

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.base import Method
from lightning_m2pt.parallel.units import refused
from lightning_m2pt.tuning.gradient_norm import GradientNorm

KEY = "model.schedule.prompt_first_steps"


def waiting_parts(first_steps: int, method: Method, rule: GradientNorm | None) -> dict[str, int]:
    """Returns for each part that is no prompt how many steps it lets prompts make alone; nothing where all begin.

    Args:
        first_steps: In which prompts move alone.
        method: What is trained.
        rule: Its parts count as prompts.
    """
    if not first_steps:
        return {}
    prompts = {*method.prompt_parts(), *(rule.parts if rule is not None else ())}
    return {part: first_steps for part in method.part_names() if part not in prompts}


def check_parts(first_steps: int, method: Method, rule: GradientNorm | None) -> None:
    """Looks whether there are prompts that could move first, and something that could wait for them.

    Raises:
        BadInputError: If there are none, or nothing else.
    """
    trained, waiting = ", ".join(method.part_names()), waiting_parts(first_steps, method, rule)
    if first_steps and len(waiting) in (0, len(method.part_names())):
        raise BadInputError(
            "prompts shall move alone at first, and "
            + (f"none of {trained} is a prompt" if waiting else f"the method trains {trained or 'nothing'} alone"),
            where=KEY,
            expected="0, or a method with prompts and another part",
            hint="lightning_m2pt.methods.combined.Combined puts prompts beside LoRA or full tuning",
        )


def check_length(first_steps: int, total_steps: float) -> None:
    """Looks whether the other parts begin before a run ends.

    Args:
        first_steps: In which prompts move alone.
        total_steps: Optimizer steps of the run.

    Raises:
        BadInputError: If they never begin.
    """
    if first_steps and first_steps >= total_steps:
        raise BadInputError(
            f"prompts move alone in {first_steps} steps, and the run has {total_steps:g}: nothing else is ever trained",
            where=KEY,
            expected=f"0 to {math.ceil(total_steps) - 1}",
        )


def refuse_under_zero(first_steps: int) -> None:
    """Refuses DeepSpeed, which makes a step of each part with an optimizer that sees that part alone.

    Raises:
        BadInputError: If prompts shall move first.
    """
    if first_steps:
        raise refused(KEY, "DeepSpeed makes every part's step by itself, and none of them could wait", "fsdp")


def share_behind(first_steps: int, share: Callable[[int], float], step: int) -> float:
    """Returns what the rate of a part that waits is multiplied by in a step, counted from 0.

    Args:
        first_steps: In which prompts move alone.
        share: The schedule from the part's first step on.
        step: Of the run.
    """
    return 0.0 if step < first_steps else share(step - first_steps)
