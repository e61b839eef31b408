"""Which parts of a frozen base are shared out among ranks, what cannot be, and the sharing out itself (FSDP2)."""

from collections.abc import Iterable

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.adapter import Adapter
from lightning_m2pt.methods.aprompt import APrompt
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.peft_tuner import PeftTuner
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.methods.prefix_tuning import PrefixTuning

ASK_FOR_ALL_ROWS = (Adapter, APrompt, LayerNormTuning, Lora, M2PT, PixelPrompting, PrefixTuning)
"""Methods that begin with copies of frozen weights, if at all, by ``filling.shares.whole``."""


def refuse_unless_shardable(backbone: Backbone, method: Method) -> None:
    """Refuses what would not be shared out, or compute something else; nothing needs to be loaded for that.

    Args:
        backbone: The frozen base.
        method: What is trained on it.

    Raises:
        BadInputError: With the reason.
    """
    members = method.methods() if isinstance(method, Combined) else [method]
    if any(isinstance(member, Full) for member in members):
        raise refused(
            "model.method",
            f"{method.name} trains the whole base, and what is trained stays whole on every device",
            "ddp",
        )
    refuse_peft_tuner(members)
    if any(getattr(member, "path", "auto") == "prefix" for member in members):
        raise refused(
            "model.method.init_args.path",
            "prompts as keys and values read weights outside of the layer's own pass",
            "token or auto, which takes the token path there",
        )
    if backbone.quantization is not None:
        raise refused(
            "model.backbone.quantization",
            f"packed weights ({backbone.quantization}) are not shared out",
            "null; or a packed base on every device with ddp",
        )
    if backbone.compile_backend is not None:
        raise refused(
            "model.backbone.compile_backend", "compiled layers with shared-out weights are not proven", "null"
        )
    if getattr(backbone, "feature_cache", None) is not None:
        raise refused(
            "model.backbone.feature_cache",
            "a device that finds its pictures' features would leave the others waiting in the tower",
            "null",
        )


def refuse_untried_under_zero(backbone: Backbone, method: Method) -> None:
    """Refuses what DeepSpeed has not been tried with, at any stage; nothing needs to be loaded for that.

    Args:
        backbone: The frozen base.
        method: What is trained on it.

    Raises:
        BadInputError: With the name of the setting.
    """
    members = method.methods() if isinstance(method, Combined) else [method]
    if any(isinstance(member, Full) for member in members):
        raise refused("model.method", f"{method.name} trains the whole base, which is not tried with DeepSpeed", "ddp")
    refuse_peft_tuner(members)
    if any(isinstance(member, PixelPrompting) for member in members):
        raise refused(
            "model.method", "DeepSpeed cuts up what the inside of a pixel prompt's border is told apart by", "ddp"
        )
    if any(getattr(member, "init_text", None) is not None for member in members):
        raise refused(
            "model.method.init_text",
            "a text goes through the decoder before DeepSpeed's engine is there, which is not tried",
            "null; or ddp or fsdp",
        )
    if backbone.quantization is not None:
        raise refused(
            "model.backbone.quantization",
            f"packed weights ({backbone.quantization}) are not tried with DeepSpeed",
            "null",
        )


def refuse_peft_tuner(members: Iterable[Method]) -> None:
    """Refuses peft's layers but those of ``Lora``: several read the frozen weight beside its layer's own pass.

    Raises:
        BadInputError: If a method has such layers.
    """
    if any(isinstance(member, PeftTuner) for member in members):
        raise refused(
            "model.method",
            "a tuner of peft on weights that are shared out, or under DeepSpeed, is not tried",
            "lightning_m2pt.methods.lora.Lora, which is",
        )


def may_copy_weights(method: Method) -> bool:
    """Tells whether a method may begin with copies of frozen weights without asking for all their rows.

    Ours ask; what a method of somebody's own does, nobody here knows.
    """
    members = method.methods() if isinstance(method, Combined) else [method]
    return any(type(member) not in ASK_FOR_ALL_ROWS for member in members)


def refused(where: str, what: str, instead: str) -> BadInputError:
    """Returns the error about a setting that a strategy which shares out something cannot have."""
    return BadInputError(what, where=where, expected=instead, hint="or experiments/strategies/ddp.yaml")


def share_out(
    backbone: Backbone, trained: Iterable[nn.Parameter], mesh: DeviceMesh, *, reshard_after_forward: bool = True
) -> None:
    """Cuts the weights of a backbone's units into rows, of which each rank keeps its share.

    From then on a unit is whole while it runs, forward and backward, and every rank has to run the same units. Trained
    tensors inside of a unit, and all that is in none, stay whole. Calling it again does nothing.

    Args:
        backbone: Its modules are built, on the meta device or with numbers.
        trained: The trained tensors that are there already.
        mesh: The ranks, in one dimension.
        reshard_after_forward: Whether a unit is given up between its forward and its backward pass, which then gathers
            it again; if not, the whole base is on every rank from the forward pass to the backward pass.

    Raises:
        BadInputError: If the backbone does not name its units.
    """
    whole = set(trained)
    for parameter in backbone.parameters():
        # A gathered unit's tensors are made once, as its shares are at that moment: before the method freezes the base.
        parameter.requires_grad_(parameter in whole)
    for unit in backbone.sharding_units():
        if not isinstance(unit, FSDPModule):
            fully_shard(unit, mesh=mesh, reshard_after_forward=reshard_after_forward, ignored_params=whole)
    if not isinstance(backbone, FSDPModule):
        # One root: units then share their streams, so that the next one is gathered while one computes. Each for itself
        # would wait for all that was computed before it.
        fully_shard(backbone, mesh=mesh, ignored_params=set(backbone.parameters()))
        register_fsdp_forward_method(backbone, "before_passes")
    run_in_lockstep(backbone)


def run_in_lockstep(backbone: Backbone) -> None:
    """Lets a backbone run the same modules on every rank, each in its own pass alone."""
    backbone.runs_in_lockstep = True
    backbone.attachment.path = "token"
    backbone.release_hooks()  # of passes that have run another path
