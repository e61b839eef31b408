"""One of peft's layers around a frozen linear layer, made by peft and trained in float32."""

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.filling.shares import whole
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.kept_norms import KeptNorm
from lightning_m2pt.methods.lora import ADAPTER, UNUSED, name_for
from lightning_m2pt.system.hidden_modules import hidden_module


def peft_layer(linear: nn.Linear, name: str, tuner: str, settings: Mapping[str, Any], where: str) -> Any:  # noqa: ANN401
    """Returns the layer that peft puts in the place of a linear layer; the linear layer itself is left as it is.

    peft sees a float32 copy, from which a start that looks at the weight takes it: a copy of one layer at a time. Where
    such a start changes the copy, the changed weight stands in the new layer, in the frozen layer's type.

    Args:
        linear: Frozen; on the meta device the new layer is there, too.
        name: What the layer is called, for patterns among the settings.
        tuner: One of ``peft_settings.TUNERS``.
        settings: All of the tuner's.
        where: The argument that the settings stand in.

    Raises:
        BadInputError: If peft cannot make it.
    """
    device = next(linear.parameters()).device
    copied = float32_copy(linear)
    before = copied.weight.detach().clone()
    shell = nn.Module()
    register_at(shell, name, copied)
    try:
        with hidden_module(UNUSED), warnings.catch_warnings(), torch.device(copied.weight.device):
            from peft import PeftType, inject_adapter_in_model
            from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

            # peft goes on with other sizes than it is told, and warns.
            warnings.filterwarnings("error", category=UserWarning, module="peft")
            config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(tuner.upper())](**only(settings, name))
            inject_adapter_in_model(config, shell)
        layer: Any = shell.get_submodule(name)
        refuse_fewer_rows(layer)
        if not all(parameter.numel() for parameter in trained_in(layer).values()):
            raise ValueError("nothing of it would be trained")  # OFT's blocks of one number do not turn
    except (ValueError, TypeError, RuntimeError, AssertionError, ZeroDivisionError, UserWarning) as error:
        raise BadInputError(
            f"{tuner} cannot wrap {name} ({linear.in_features} to {linear.out_features} numbers): {error!s:.300}",
            where=f"model.method.{where}",
            expected="settings that fit the layers",
        ) from error
    changed = copied.weight.detach()
    layer.base_layer = nn.Identity()  # neither moved nor made float32 with what is trained
    layer.float().to(device)
    layer.base_layer = linear if before.is_meta or torch.equal(before, changed) else changed_linear(linear, changed)
    for dora in getattr(layer, "lora_magnitude_vector", {}).values():
        KeptNorm(dora)
    return layer.eval()


def refuse_fewer_rows(layer: Any) -> None:  # noqa: ANN401
    """Compares LoRA's factors with their rank: a weight has no more singular vectors than rows or columns.

    Raises:
        ValueError: If peft has made smaller ones.
    """
    if hasattr(layer, "lora_A") and len(layer.lora_A[ADAPTER].weight) < layer.r[ADAPTER]:
        raise ValueError(f"the weight has no {layer.r[ADAPTER]} singular vectors to start from")


def refuse_lost_rotations(
    layers: Mapping[str, nn.Linear], settings: Mapping[str, Any], dtype: torch.dtype, where: str
) -> None:
    """Refuses constrained rotations (COFT) that change numbers by less than the base's type rounds them by.

    peft keeps the norm of each block's skew-symmetric matrix at ``eps`` over the root of the number of blocks, which
    changes a number by 2 eps / sqrt(n) of its size, n numbers being turned by all blocks. What is turned stood in the
    base's type, and is rounded to it again: most of a change below a quarter of the type's epsilon, the size of its
    rounding, is undone, however long is trained.

    Args:
        layers: The wrapped ones by name.
        settings: All of the tuner's.
        dtype: The base's.
        where: The argument that the settings stand in.

    Raises:
        BadInputError: Naming the layer that needs the largest ``eps``.
    """
    if not settings.get("coft") or not layers:
        return
    name, widest = max(layers.items(), key=lambda each: each[1].in_features)
    turned = widest.in_features
    if settings["block_share"]:
        turned = settings["oft_block_size"] or max(1, turned // settings["r"])
    rounding = torch.finfo(dtype).eps / 4
    change = 2 * settings["eps"] / math.sqrt(turned)
    if change < rounding:
        least = math.ceil(1000 * rounding * math.sqrt(turned) / 2) / 1000
        raise BadInputError(
            f"coft changes the numbers in front of {name} by {change:.1g} of their size, "
            f"and {str(dtype).removeprefix('torch.')} rounds them by {rounding:.1g}",
            where=f"model.method.{where}.eps",
            expected=f"{least} or more, or a base in float32",
        )


def float32_copy(linear: nn.Linear) -> nn.Linear:
    """Returns a copy of a frozen linear layer in float32, on the CPU, or without numbers if that has none."""
    is_meta = next(linear.parameters()).is_meta
    device = torch.device("meta" if is_meta else "cpu")
    copied: nn.Linear = nn.utils.skip_init(
        nn.Linear, linear.in_features, linear.out_features, linear.bias is not None, device=device, dtype=torch.float32
    )
    if not is_meta:
        copied.weight.data = whole(linear.weight).to(device, torch.float32, copy=True)
        if linear.bias is not None:
            copied.bias.data = whole(linear.bias).to(device, torch.float32, copy=True)
    return copied.requires_grad_(False)


def changed_linear(linear: nn.Linear, weight: Tensor) -> nn.Linear:
    """Returns a frozen linear layer like another with another weight, on its device and in its type."""
    made: nn.Linear = nn.utils.skip_init(
        nn.Linear,
        linear.in_features,
        linear.out_features,
        False,
        device=linear.weight.device,
        dtype=linear.weight.dtype,
    )
    made.weight.data.copy_(weight)
    made.bias = linear.bias
    return made.requires_grad_(False)


def register_at(root: nn.Module, name: str, module: nn.Module) -> None:
    """Registers a module under a dotted name, with an empty module for every step of it."""
    *steps, last = name.split(".")
    for step in steps:
        if step not in dict(root.named_children()):
            root.add_module(step, nn.Module())
        root = root.get_submodule(step)
    root.add_module(last, module)


def trained_in(layer: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the tensors that peft has put beside a layer, by their names in it without that of the adapter."""
    return {
        ".".join(step for step in name.split(".") if step != ADAPTER): parameter
        for name, parameter in layer.named_parameters()
        if not name.startswith("base_layer.")
    }


def only(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns a tuner's settings for one layer that was chosen already: of patterns those that name it."""
    found = {key: value for key, value in settings.items() if key != "layers_to_transform"}
    for key in {"rank_pattern", "alpha_pattern"} & set(settings):
        found[key] = {each: value for each, value in settings[key].items() if name_for(name, (each,))}
    return {**found, "target_modules": [name, *settings.get("feedforward_modules", [])], "exclude_modules": None}


def chosen_by_peft(tuner: str, settings: Mapping[str, Any], offered: Iterable[str]) -> list[str]:
    """Returns the layers that peft would wrap; all, but for excluded ones, where ``target_modules`` is None.

    Args:
        tuner: One of ``peft_settings.TUNERS``.
        settings: All of the tuner's.
        offered: Names of layers.
    """
    with hidden_module(UNUSED):
        from peft import PeftType
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
        from peft.tuners.tuners_utils import check_target_module_exists

    places = list(offered)
    # By their last steps: of whole names peft takes all, whatever layers are named.
    endings = sorted({place.rpartition(".")[2] for place in places})
    targets = endings if settings["target_modules"] is None else settings["target_modules"]
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(tuner.upper())]
    config = kind(target_modules=targets, exclude_modules=settings["exclude_modules"])
    config.layers_to_transform = settings.get("layers_to_transform")
    return [place for place in places if check_target_module_exists(config, place)]
