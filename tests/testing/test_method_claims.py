"""Every claim of the contract of methods is made: an adapter that breaks one of them is refused in its words."""

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.methods.adapter import Adapter
from lightning_m2pt.testing.method_contract import method_contract

UP = "adapters.0_mlp.up.weight"
COUNTED = itertools.count()


def scaled(backbone: Backbone) -> None:
    """Writes to frozen weights."""
    if not next(backbone.parameters()).is_meta:
        with torch.no_grad():
            backbone.token_embedding().weight.mul_(1.5)


def replaced(backbone: Backbone) -> None:
    """Puts an equal tensor into the place of a frozen one."""
    backbone.projector.weight = nn.Parameter(backbone.projector.weight.detach().clone(), requires_grad=False)


def trained(backbone: Backbone) -> None:
    """Lets a frozen tensor be trained."""
    backbone.projector.weight.requires_grad_(True)


def hooked(backbone: Backbone) -> None:
    """Leaves a hook that does nothing."""
    backbone.sublayer(0, "mlp").register_forward_hook(lambda *_: None)


def after(name: str, change: Callable[[Backbone], None]) -> dict[str, Any]:
    """Returns a function of the adapter's with something else done to the backbone behind it."""

    def function(self: Adapter, backbone: Backbone, *others: Any) -> None:
        getattr(Adapter, name)(self, backbone, *others)
        change(backbone)

    return {name: function}


def drawn_elsewhere(self: Adapter, backbone: Backbone, generator: torch.Generator) -> None:
    Adapter.build(self, backbone, generator)
    nn.init.constant_(self.adapters["0_mlp"].down.bias, random.random())


def wider_without_memory(self: Adapter, backbone: Backbone, generator: torch.Generator) -> None:
    self.size += int(next(backbone.parameters()).is_meta)
    Adapter.build(self, backbone, generator)


def change_for_ever(self: Adapter, backbone: Backbone, without: Any) -> None:
    Adapter.inject(self, backbone, without)
    hook = backbone.sublayer(0, "mlp").register_forward_hook(lambda _module, _given, output: 1.5 * output)
    self._handles.append(hook)


def counted_twice(self: Adapter) -> list[Any]:
    return [*Adapter.parameter_parts(self), *Adapter.parameter_parts(self)]


BROKEN: dict[str, dict[str, Any]] = {
    "part_names names a part twice": {"part_names": lambda self: ["adapters", "interaction", "adapters"]},
    "possible_parts leaves out a part": {"possible_parts": lambda self: ["adapters"]},
    "toggles does not come back from JSON": {"toggles": lambda self: {"size": (4,)}},
    "adapter_config differs for the same": {"adapter_config": lambda self: {"size": next(COUNTED)}},
    "places names 'nowhere', which no backbone": {"places": lambda self: {"nowhere"}},
    "places has to name where": {"places": lambda self: set()},
    "added_parameters has other keys": {"added_parameters": lambda self: {"adapters": 1}},
    "the part adapters has no number": {"parts": lambda self: {**Adapter.parts(self), "adapters": []}},
    "parts has other keys, or another order": {"parts": lambda self: dict(reversed(Adapter.parts(self).items()))},
    "build makes other tensors with the same generator": {"build": drawn_elsewhere},
    "build changes the backbone": after("build", scaled),
    "detaching leaves other numbers": after("detach", scaled),
    "detaching leaves other tensors": after("detach", replaced),
    "detaching leaves hooks": after("inject", hooked),
    "attached, it changes no number": {
        "inject": lambda self, backbone, without: None,
        "attachment": lambda self, without: Adapter(4, interaction=False).attachment(without),
    },
    "with every part knocked out the numbers": {"inject": change_for_ever},
    "an unknown part can be knocked out": {"check_knock_out": lambda self, without: None},
    "attached, other tensors are trained": after("inject", trained),
    "numbers are counted, and": {"parameter_parts": counted_twice},
    "dead_rows names nonsense": {"dead_rows": lambda self: {"nonsense": [0]}},
    f"rows of {UP} are declared dead": {"dead_rows": lambda self: {UP: [0]}},
    f"may_start_without_gradient names {UP}": {
        "may_start_without_gradient": lambda self: {UP, *Adapter.may_start_without_gradient(self)}
    },
    "on the meta device other tensors": {"build": wider_without_memory},
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_what_does_not_hold_is_said(sentence: str) -> None:
    broken = type("Broken", (Adapter,), BROKEN[sentence])
    with pytest.raises(AssertionError, match=f"^Broken: .*{sentence}"):
        method_contract(lambda: broken(4))
