"""The state of an optimizer that DeepSpeed has shared out, as torch's AdamW has it on one device, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps of a tensor, besides the number of steps."""


def prepare_state(zero: Any) -> None:  # noqa: ANN401  (without DeepSpeed its classes cannot be named)
    """Makes the state that torch's AdamW would make at its first step.

    DeepSpeed looks for it once the first parameter group has made a step, and would know of no other group's.

    Args:
        zero: DeepSpeed's optimizer around torch's.
    """
    for partition in partitions(zero):
        zeros = {key: torch.zeros_like(partition, requires_grad=False) for key in MOMENTS}
        zero.optimizer.state[partition] = {"step": torch.tensor(0.0, dtype=torch.float32), **zeros}
    if not is_stage_3(zero):
        zero._lazy_init_hp_params_optimizer_state()


def partitions(zero: Any) -> list[Tensor]:  # noqa: ANN401
    """Returns what this rank has of every parameter group, flat and in float32: what torch's optimizer updates."""
    return list(zero.fp32_partitioned_groups_flat if is_stage_3(zero) else zero.single_partition_of_fp32_groups)


def is_stage_3(zero: Any) -> bool:  # noqa: ANN401
    """Tells whether DeepSpeed's optimizer has shared out the tensors themselves."""
    return hasattr(zero, "persistent_parameters")


def keep_whole(zero: Any, parameters: Sequence[Sequence[nn.Parameter]]) -> None:  # noqa: ANN401
    """Gathers the trained tensors, which stage 3 shares out, now and after every step, and never lets them go."""
    every: list[Any] = [parameter for group in parameters for parameter in group]
    for parameter in every:
        parameter.ds_persist = True
    zero.persistent_parameters.extend(every)
    every[0].all_gather(every)


def take_over_tensors(zero: Any, parameters: Sequence[Sequence[nn.Parameter]]) -> None:  # noqa: ANN401
    """Makes what the trained tensors have been set to, the same on all ranks, what is updated from now on."""
    from deepspeed import zero as stages

    every: list[Any] = [parameter for group in parameters for parameter in group]
    if is_stage_3(zero):
        with stages.GatheredParameters(every, modifier_rank=0):
            pass  # they are shared out again when it ends
        every[0].all_gather(every)
    zero.refresh_fp32_params()


def whole_optimizer_state(zero: Any, parameters: Sequence[Sequence[nn.Parameter]]) -> dict[str, Any]:  # noqa: ANN401
    """Gathers an optimizer's state; to be called by all ranks.

    Args:
        zero: DeepSpeed's optimizer around torch's, prepared.
        parameters: The trained tensors of every parameter group, in the order in which torch's was made.

    Returns:
        What ``torch.optim.AdamW.state_dict`` returns, the moments in float32 and in new memory.
    """
    from deepspeed.utils import safe_get_full_optimizer_state

    state: dict[int, dict[str, Tensor]] = {}
    groups = []
    for settings, partition, tensors in zip(zero.optimizer.param_groups, partitions(zero), parameters, strict=True):
        steps = zero.optimizer.state[partition]["step"]
        numbers = range(len(state), len(state) + len(tensors))
        for number, tensor in zip(numbers, tensors, strict=True):
            moments = {key: safe_get_full_optimizer_state(tensor, key) for key in MOMENTS}
            state[number] = {"step": steps.clone(), **moments}
        groups.append({key: value for key, value in settings.items() if key != "params"} | {"params": list(numbers)})
    return {"state": state, "param_groups": groups}


def load_optimizer_state(
    zero: Any,  # noqa: ANN401
    parameters: Sequence[Sequence[nn.Parameter]],
    saved: Mapping[str, Any],
) -> None:
    """Takes over a state in the form of ``whole_optimizer_state``, each rank its share.

    Args:
        zero: DeepSpeed's optimizer around torch's, prepared.
        parameters: As for ``whole_optimizer_state``.
        saved: The state.
    """
    groups = zip(zero.optimizer.param_groups, partitions(zero), saved["param_groups"], parameters, strict=True)
    for settings, partition, group, tensors in groups:
        settings.update({key: value for key, value in group.items() if key != "params"})
        for number, tensor in zip(group["params"], tensors, strict=True):
            state = saved["state"][number]
            zero.optimizer.state[partition]["step"].copy_(state["step"])
            for key in MOMENTS:
                set_moment(tensor, state[key].to(tensor.device), key)


def set_moment(parameter: nn.Parameter, moment: Tensor, key: str) -> None:
    """Sets this rank's part of a moment of a trained tensor."""
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    kept: Tensor | None = getattr(parameter, "ds_tensor", None)
    if kept is None:
        safe_set_full_optimizer_state(parameter, moment, key)
        return
    # Not as a whole: DeepSpeed would cut the last rank's part off behind the tensor's end, where its own are padded.
    parts = dist.get_world_size()
    padded = nn.functional.pad(moment.flatten(), (0, kept.numel() * parts - moment.numel()))
    safe_set_local_optimizer_state(parameter, padded.view(parts, -1)[dist.get_rank()], key)
