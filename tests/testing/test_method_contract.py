"""The contract of methods finds what is planted: one bug a method, each of which would train or answer wrongly."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.methods.adapter import Adapter
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.testing.method_contract import method_contract


class LeavesHooks(Adapter):
    """Detaching takes nothing away."""

    def restore(self, backbone: Backbone) -> None:
        self._handles.clear()


class ChangesWeights(Adapter):
    """What is frozen is written to."""

    def inject(self, backbone: Backbone, without: Any) -> None:
        super().inject(backbone, without)
        with torch.no_grad():
            backbone.token_embedding().weight.mul_(1.001)


class LeavesAPartOut(Adapter):
    """A trained tensor is not declared."""

    def parts(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        return {part: tensors[:-1] for part, tensors in super().parts().items()}


class DeclaresWhatIsNotUsed(Adapter):
    """A declared tensor reaches nothing."""

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        super().build(backbone, generator)
        self.adapters.unused = nn.LayerNorm(2)

    def inject(self, backbone: Backbone, without: Any) -> None:
        unused = self.adapters._modules.pop("unused")
        super().inject(backbone, without)
        self.adapters.unused = unused


class DrawsGlobally(M2PT):
    """Prompts depend on what else was random before."""

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        super().build(backbone, generator)
        for tensor in self.visual_prompts.parameters():
            nn.init.normal_(tensor)


class FollowsTheBaseType(M2PT):
    """Trained tensors are of the frozen weights' type."""

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        super().build(backbone, generator)
        self.interaction.to(backbone.projector.weight.dtype)


class CannotBeKnockedOut(M2PT):
    """A part stays though it is knocked out."""

    def attachment(self, without: Any) -> Attachment:
        return super().attachment(without - {"textual_prompts"})


class KeepsAStateUnsaved(M2PT):
    """A number that decides is no parameter, so that it is not saved."""

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        super().build(backbone, generator)
        if not next(backbone.parameters()).is_meta:
            scale = 1 + torch.rand((), generator=generator)
            self.interaction.register_forward_hook(lambda _module, _given, output: output * scale)


class TakesMemoryOnMeta(M2PT):
    """Counting a large model would fill the memory."""

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        super().build(backbone, generator)
        self.interaction.bias = nn.Parameter(torch.zeros(self.interaction.bias.shape))


class CountsTooMuch(Adapter):
    """More numbers are said to be added than are trained."""

    def added_parameters(self) -> dict[str, int]:
        return {part: number + 1 for part, number in super().added_parameters().items()}


class ForgetsItsRows(M2PT):
    """The room that prompts take is not said, so that a sequence may become too long."""

    def rows_before_text(self) -> int:
        return 0


class HidesDeadRows(M2PT):
    """Numbers that are never trained are counted as if they were."""

    def dead_rows(self) -> dict[str, list[int]]:
        return {}


class HidesLateStarters(Adapter):
    """What starts without a gradient is not said."""

    def may_start_without_gradient(self) -> set[str]:
        return set()


class WritesATuple(Adapter):
    """An adapter's arguments never equal those that were saved."""

    def adapter_config(self) -> dict[str, object]:
        return {**super().adapter_config(), "placement": ("mlp",)}


class TrainsAnotherPart(Adapter):
    """What is trained goes by another name than what rates and knock-outs are given for."""

    def parts(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        return {part.upper(): tensors for part, tensors in super().parts().items()}


class OnOutputs(Adapter):
    """Base class: a change of the MLP's outputs that the backbone's other passes do not take part in."""

    def change(self, states: Tensor) -> Tensor:
        raise NotImplementedError

    def inject(self, backbone: Backbone, without: Any) -> None:
        super().inject(backbone, without)
        if "adapters" not in without:
            mlp = backbone.sublayer(1, "mlp")
            self._handles.append(mlp.register_forward_hook(lambda _module, _given, output: self.change(output)))


class MixesSamples(OnOutputs):
    """A sample's answer depends on the others of its batch."""

    def change(self, states: Tensor) -> Tensor:
        return states + states.mean(dim=0, keepdim=True)


class ForgetsWhenDecoding(OnOutputs):
    """Decoding token by token leaves the change out."""

    def change(self, states: Tensor) -> Tensor:
        return 1.5 * states if states.shape[1] > 1 else states


class LooksAhead(OnOutputs):
    """A token's numbers depend on those behind it, which decoding does not have."""

    def change(self, states: Tensor) -> Tensor:
        return states + 0.1 * states.flip(1).cumsum(1).flip(1)


class WorksInOneTypeOnly(OnOutputs):
    """What goes back into a bfloat16 model is float32."""

    def change(self, states: Tensor) -> Tensor:
        return states.float() if states.dtype == torch.bfloat16 else 1.0 * states


BUGS: dict[str, tuple[Callable[[], Method], str]] = {
    "hooks stay": (lambda: LeavesHooks(4), "attaching twice gives other numbers than once"),
    "weights change": (lambda: ChangesWeights(4), "attaching twice gives other numbers|other numbers in the backbone"),
    "undeclared tensor": (lambda: LeavesAPartOut(4), "that parts leaves out"),
    "declared and unused": (lambda: DeclaresWhatIsNotUsed(4), "no gradient reaches adapters.unused"),
    "global generator": (lambda: DrawsGlobally(3, 2), "draws from torch's global generator"),
    "the base's type": (lambda: FollowsTheBaseType(3, 2), "interaction.weight.* is not float32|float64"),
    "knock-out": (lambda: CannotBeKnockedOut(3, 2), "knocking textual_prompts out changes no number"),
    "unsaved state": (lambda: KeepsAStateUnsaved(3, 2), "a tensor is not saved"),
    "memory on meta": (lambda: TakesMemoryOnMeta(3, 2), "with memory for a backbone on the meta device"),
    "counts": (lambda: CountsTooMuch(4), "adds .* numbers and trains"),
    "rows": (lambda: ForgetsItsRows(3, 2), "rows_before_text says 0, and its attachment has 2"),
    "dead rows": (lambda: HidesDeadRows(3, 2), r"rows \[0\] of visual_prompts.rows.3 have no gradient"),
    "late starters": (lambda: HidesLateStarters(4), "which may_start_without_gradient does not say"),
    "arguments": (lambda: WritesATuple(4), "adapter_config does not come back from JSON"),
    "names of parts": (lambda: TrainsAnotherPart(4), "other keys"),
    "samples meet": (lambda: MixesSamples(4), "the other samples of its batch"),
    "decoding": (lambda: ForgetsWhenDecoding(4), "advance, token 1"),
    "looking ahead": (lambda: LooksAhead(4), "depend on padding"),
    "one type": (lambda: WorksInOneTypeOnly(4), "bfloat16: RuntimeError"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found_and_named(bug: str) -> None:
    make, sentence = BUGS[bug]
    with pytest.raises(AssertionError, match=sentence) as caught:
        method_contract(make)
    assert str(caught.value).startswith(type(make()).__name__)


def test_how_a_method_starts_is_looked_at_where_it_is_said() -> None:
    method_contract(lambda: Adapter(4))
    with pytest.raises(AssertionError, match="untrained it has to change the frozen model's numbers"):
        method_contract(lambda: Adapter(4), starts_as_frozen=False)
    with pytest.raises(AssertionError, match="untrained it has to give the frozen model's numbers"):
        method_contract(lambda: M2PT(3, 2), starts_as_frozen=True)
