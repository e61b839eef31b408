"""Which of Lightning's strategies this project has not been proven to train right with, and why they are refused."""

from collections.abc import Iterable, Mapping

from lightning.pytorch.strategies import Strategy

from lightning_m2pt.errors import BadInputError

PROVEN = ("FullyShardedStrategy", "ZeroStrategy")
"""Ours, each of them made of a strategy that is refused by itself."""
SHARED_OUT = "for a base that does not fit one device: experiments/strategies/fsdp.yaml, which shares it out"

UNPROVEN = {
    "fsdp": "FSDP cuts the trained tensors into pieces, and pieces would be saved as the adapter",
    "modelparallel": "FSDP2 is not told what to share out, and every rank would train a model of its own",
    "deepspeed": "DeepSpeed keeps gradients and trained tensors to itself, and an empty adapter would be saved",
}
"""How the names and classes of these strategies begin, in small letters."""
INSTEAD = {
    "deepspeed": "experiments/strategies/deepspeed_stage_2.yaml, and deepspeed_stage_3.yaml for a shared-out base"
}
"""The hint at what to take, by the same beginnings, if it is another one."""


def configured_names(strategy: object) -> list[str]:
    """Returns the names under which a configuration asks for a strategy: its own, or that of its class."""
    if isinstance(strategy, Mapping):
        return [str(strategy.get("class_path", "")).rpartition(".")[2]]
    return [str(strategy or "")]


def class_names(strategy: Strategy) -> list[str]:
    """Returns the names of a strategy's class and of those it is derived from."""
    return [kind.__name__ for kind in type(strategy).__mro__]


def refuse_unproven_strategy(names: Iterable[str]) -> None:
    """Refuses a strategy that shares out weights or gradients; nothing needs to be installed for that.

    Args:
        names: Of the strategy or its classes.

    Raises:
        BadInputError: With the reason, if one of them is.
    """
    listed = list(names)
    if any(name in PROVEN for name in listed):
        return
    for name in listed:
        for beginning, reason in UNPROVEN.items():
            if name.lower().startswith(beginning):
                raise BadInputError(
                    f"{name} is not supported: {reason}",
                    where="trainer.strategy",
                    expected="experiments/strategies/ddp.yaml, or a single device",
                    hint=INSTEAD.get(beginning, SHARED_OUT),
                )
