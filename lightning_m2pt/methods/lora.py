"""LoRA (Hu et al., ICLR 2022) through peft: h = W0 x + (alpha / r) B A x beside frozen linear layers.

peft's layers compute; which layers they wrap, what is trained and how it is saved is decided here, as for every method.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.filling.shares import any_is_cut, empty_like
from lightning_m2pt.backbones.quantised import QuantisedLinear
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.methods.argument_checks import require_dropout, require_positive, require_size
from lightning_m2pt.methods.base import Place
from lightning_m2pt.methods.stand_ins import StandIn, WithStandIns, register_parameter_at
from lightning_m2pt.methods.with_interaction import INTERACTION
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.system.hidden_modules import hidden_module

LANGUAGE, VISION, PROJECTOR = "language_low_rank", "vision_low_rank", "projector_low_rank"
COMPONENTS = {LANGUAGE: "language", VISION: "vision", PROJECTOR: "interaction"}
"""The parts and the components of a backbone whose linear layers they update."""
ADAPTER = "default"
"""peft's name for the one adapter of a layer."""
UNUSED = "bitsandbytes"
"""peft imports it, which takes seconds, for layers of its that are not used here."""


class Lora(WithStandIns):
    """Low-rank updates of the language model's linear layers, and if wanted of the vision tower's and the projector's.

    In the language model these are all seven of a Llama block (query, key, value, output, gate, up, down) and never
    the head. In the tower they are the two of each block's MLP: open_clip's attention holds its three projections in
    one packed tensor that torch's attention reads directly, past any wrapped layer.

    Args:
        rank: r; 16 on Vicuna-7B with the projector is the published 0.63%.
        alpha: The update is scaled by alpha / r; None takes 2 r.
        dropout: Dropout on the input of A in training.
        vision: Also wrap the vision tower's MLP layers.
        interaction: Train the projector between vision and language (LLaVA's LoRA runs do).
        targets: Which of these layers are wrapped: names in the backbone, or their last steps, such as ``q_proj`` or
            ``layers.0.mlp.up_proj``. None: all.
        ranks: Ranks of layers that have another one, by such names; the longest that fits a layer counts.
        alphas: The same of alphas.
        projector: Update the projector's linear layers in the same way, in the place of ``interaction``.
    """

    name = "lora"
    later_arguments: ClassVar[Mapping[str, object]] = MappingProxyType(
        {"targets": None, "ranks": None, "alphas": None, "projector": False}
    )

    def __init__(
        self,
        rank: int = 16,
        alpha: float | None = None,
        dropout: float = 0.05,
        vision: bool = False,
        interaction: bool = True,
        targets: list[str] | None = None,
        ranks: dict[str, int] | None = None,
        alphas: dict[str, float] | None = None,
        projector: bool = False,
    ) -> None:
        super().__init__(interaction)
        require_dropout(dropout)
        self.rank, self.vision, self.projector = rank, vision, projector
        self.alpha = float(2 * rank if alpha is None else alpha)
        self.targets = None if targets is None else list(targets)
        self.ranks, self.alphas = dict(ranks or {}), dict(alphas or {})
        for key, size in {"rank": rank, **{f"ranks.{name}": each for name, each in self.ranks.items()}}.items():
            require_size(key, size, 1)
        for key, scale in {
            "alpha": self.alpha,
            **{f"alphas.{name}": each for name, each in self.alphas.items()},
        }.items():
            require_positive(key, scale)
        if projector and interaction:
            raise BadInputError(
                "the projector is trained as a whole, and low-rank updates of it besides",
                where="model.method.projector",
                expected="interaction: false, or projector: false",
            )
        self.input_dropout = nn.Dropout(dropout)

    def check(self, shape: BackboneShape) -> None:
        """Checks that peft is installed.

        Raises:
            EnvironmentFailure: If it is not.
        """
        try:
            with hidden_module(UNUSED):
                import peft  # noqa: F401
        except ImportError as error:
            raise EnvironmentFailure(
                f"peft cannot be imported ({error})",
                where="model.method",
                expected="the package that computes LoRA",
                hint="pip install -c constraints.txt -e '.[peft]'",
            ) from error

    def part_names(self) -> list[str]:
        """Returns the components that are switched on."""
        wrapped = [LANGUAGE, *([VISION] if self.vision else []), *([PROJECTOR] if self.projector else [])]
        return [*wrapped, *self.interaction_names()]

    def possible_parts(self) -> list[str]:
        """Returns all components, switched on or off; the projector's where it is on, for tables are named by these."""
        return [LANGUAGE, VISION, *([PROJECTOR] if self.projector else []), INTERACTION]

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        """Makes A and B of every wrapped layer in float32: A Kaiming-uniform with a = sqrt(5), B zero."""
        chosen = self._chosen_layers(backbone)
        self._refuse_names_of_nothing([place for layers in chosen.values() for place in layers])
        for part, layers in chosen.items():
            holder = self.new_holder(part)
            for place, linear in layers.items():
                layer = low_rank_layer(linear, self.rank_of(place), self.alpha_of(place), self.input_dropout)
                name = name_in_part(place)
                for factor in ("lora_A", "lora_B"):
                    weight = getattr(layer, factor)[ADAPTER].weight
                    if factor == "lora_A" and not weight.is_meta:
                        nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
                    register_parameter_at(holder, f"{name}.{factor}.weight", weight)
                self._stand_ins.append(StandIn(part, place, linear, layer))
        self.build_interaction(backbone)

    def rank_of(self, place: str) -> int:
        """Returns the rank of a wrapped layer."""
        return self.ranks.get(name_for(place, self.ranks), self.rank)

    def alpha_of(self, place: str) -> float:
        """Returns the alpha of a wrapped layer."""
        return self.alphas.get(name_for(place, self.alphas), self.alpha)

    def _chosen_layers(self, backbone: Backbone) -> dict[str, dict[str, nn.Linear]]:
        """Returns by part the layers that are wrapped.

        Raises:
            BadInputError: If a part has none.
        """
        chosen: dict[str, dict[str, nn.Linear]] = {}
        for part in (part for part in COMPONENTS if part in self.part_names()):
            layers = linear_layers(backbone, COMPONENTS[part])
            targets = layers if self.targets is None else self.targets
            chosen[part] = {place: linear for place, linear in layers.items() if name_for(place, targets)}
            if not chosen[part]:
                raise BadInputError(
                    f"targets name no linear layer of {part.partition('_')[0]}",
                    where="model.method.targets",
                    expected=f"one of them, or null; such as {next(iter(layers), 'none: it has no linear layer')}",
                )
        return chosen

    def _refuse_names_of_nothing(self, places: Sequence[str]) -> None:
        """Refuses names that no wrapped layer has.

        Raises:
            BadInputError: Naming the first.
        """
        for key, names in (("targets", self.targets or ()), ("ranks", self.ranks), ("alphas", self.alphas)):
            for name in names:
                if not any(name_for(place, (name,)) for place in places):
                    raise BadInputError(
                        f"no wrapped linear layer is called {name!a:.80}",
                        where=f"model.method.{key}",
                        expected=f"names of layers, or their last steps, such as {places[0].rpartition('.')[2]}",
                    )

    def attachment(self, without: AbstractSet[str]) -> Attachment:
        """Returns the interaction layer, and the dropout in front of every A."""
        attachment = super().attachment(without)
        attachment.decoder_dropout = None if LANGUAGE in without else self.input_dropout
        return attachment

    def may_start_without_gradient(self) -> set[str]:
        """Returns every A: while B is zero, nothing reaches it."""
        return {name for tensors in self.parts().values() for name, _ in tensors if name.endswith(".lora_A.weight")}

    def places(self) -> set[Place]:
        """Returns the linear layers, and the projector if it is trained."""
        vision: set[Place] = {"vision tower's linear layers"} if self.vision else set()
        projector: set[Place] = {"projector"} if self.projector else set()
        return {"language model's linear layers", *vision, *projector, *self.interaction_places()}

    def toggles(self) -> dict[str, bool | int | str]:
        """Returns the rank and which components are trained."""
        return {"method": self.name, "rank": self.rank, **self.switches()}

    def adapter_config(self) -> dict[str, object]:
        """Returns the constructor's arguments that decide the tensors and the numbers."""
        later = {"ranks": self.ranks, "alphas": self.alphas, "projector": self.projector}
        return {
            "rank": self.rank,
            "alpha": self.alpha,
            "vision": self.vision,
            "interaction": self.train_interaction,
            **({} if self.targets is None else {"targets": self.targets}),
            **{name: value for name, value in later.items() if value},
        }


def name_for(place: str, names: Iterable[str]) -> str:
    """Returns the longest of these names that is a layer's, or its last steps; empty if none is."""
    return max((name for name in names if place == name or place.endswith(f".{name}")), key=len, default="")


def name_in_part(place: str) -> str:
    """Returns what a layer's tensors are called inside their part; a projector may be one layer and no more."""
    return place.partition(".")[2] or place


def linear_layers(backbone: Backbone, component: str) -> dict[str, nn.Linear]:
    """Returns the linear layers of a component that its output depends on, by name; not the head.

    Args:
        backbone: Its used tensors say which layers matter.
        component: ``vision``, ``interaction`` or ``language``.
    """
    places = {place.rpartition(".")[0] for place in backbone.used_tensors()[component]}
    modules = {place: backbone.get_submodule(place) for place in sorted(places)}
    head = backbone.pretrained_lm_head()
    return {
        place: module
        for place, module in backbone.named_modules()
        if place in modules and type(module) in (nn.Linear, QuantisedLinear) and module is not head
    }


class ModuleReference(nn.Module):
    """Calls a module that belongs to somebody else, and so does not follow the mode of the place it stands in.

    A backbone is always in evaluation mode; dropout has to follow the method's.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = (module,)  # a tuple: not registered as a child

    @property
    def module(self) -> nn.Module:
        """The other module."""
        return self._module[0]

    def forward(self, states: Tensor) -> Tensor:
        """Returns what the other module makes of it."""
        return self.module(states)  # type: ignore[no-any-return]


def low_rank_layer(linear: nn.Linear, rank: int, alpha: float, dropout: nn.Module) -> Any:  # noqa: ANN401
    """Returns peft's LoRA layer around a linear layer: A and B in float32 on the layer's device, B zero."""
    with hidden_module(UNUSED):
        from peft import LoraConfig
        from peft.tuners.lora.layer import Linear

    config = LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights=False)
    # peft takes the rows that a process holds of a shared-out weight for all of them.
    measured = empty_like(linear) if any_is_cut(linear) else linear
    with torch.random.fork_rng(devices=[]), torch.device(linear.weight.device):
        layer = Linear(measured, ADAPTER, config, r=rank, lora_alpha=alpha)
    layer.base_layer = linear
    layer.lora_A.float()  # peft gives them the frozen layer's type
    layer.lora_B.float()
    layer.lora_dropout[ADAPTER] = ModuleReference(dropout)
    nn.init.zeros_(layer.lora_B[ADAPTER].weight)
    if isinstance(linear, QuantisedLinear):
        layer.merge = refuse_merging
    return layer


def refuse_merging(*_arguments: object, **_keywords: object) -> None:
    """Stands in for peft's merging, which would add the update to an unpacked copy that nobody keeps.

    Raises:
        BadInputError: Always.
    """
    raise BadInputError(
        "low-rank updates cannot be merged into packed weights",
        where="model.backbone.quantization",
        expected="null, where updates shall be merged",
    )
