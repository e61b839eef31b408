"""Any tuner of peft that keeps the contract of methods, such as rsLoRA, DoRA, PiSSA, (IA)^3, LoKr or OFT.

peft's layers compute; which layers they wrap, what is trained and how it is saved is decided here, as for every method.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.quantised import QuantisedLinear
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.methods.base import Place
from lightning_m2pt.methods.lora import ADAPTER, UNUSED, ModuleReference, linear_layers, name_for, name_in_part
from lightning_m2pt.methods.lora import LANGUAGE as LANGUAGE_LOW_RANK
from lightning_m2pt.methods.lora import VISION as VISION_LOW_RANK
from lightning_m2pt.methods.peft_layers import chosen_by_peft, peft_layer, refuse_lost_rotations, trained_in
from lightning_m2pt.methods.peft_settings import CHANGE_BASE, LORA, TUNERS, checked_settings
from lightning_m2pt.methods.stand_ins import StandIn, WithStandIns, register_parameter_at
from lightning_m2pt.methods.with_interaction import INTERACTION
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.system.hidden_modules import hidden_module

LANGUAGE, VISION = "language", "vision"
ARGUMENTS = {LANGUAGE: "settings", VISION: "vision"}
"""The argument that each component's settings stand in."""
PLACES: dict[str, Place] = {
    LANGUAGE: "language model's linear layers",
    VISION: "vision tower's linear layers",
}
PARTS = {LANGUAGE: LANGUAGE_LOW_RANK, VISION: VISION_LOW_RANK}
"""LoRA's parts go by the same names as those of ``methods.lora.Lora``."""
FACTORS = {"lora_A": "a", "lora_B": "b", "lora_magnitude_vector": "magnitude"}
"""What LoRA's tensors are called where they are parts by themselves."""
LATE = {
    "loha": ("hada_w1_a", "hada_w1_b", "hada_w2_a"),
    "lokr": ("lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_w1_b"),
}
"""Tensors that get no gradient before another, which starts at zero, has moved."""

DORA_KEEPS = 1.35
"""Measured against what autograd keeps of a small model: times LoRA, on which the estimate of a place is."""


class PeftTuner(WithStandIns):
    """A tuner of peft in linear layers of the language model, of the vision tower, or of both.

    Args:
        tuner: ``lora``, ``ia3``, ``loha``, ``lokr``, ``oft`` or ``hra``.
        settings: peft's settings of it for the language model, by peft's names; what is not given is peft's default.
            ``target_modules`` are names of layers or their last steps, and all linear layers but the head where it is
            not given. None: the language model stays as it is.
        vision: The same for the vision tower. open_clip's attention holds its projections in one packed tensor, past
            any wrapped layer: the two layers of each block's MLP are what can be wrapped there.
        interaction: Train the projector between vision and language as a whole.
        split_factors: LoRA's A and B, and DoRA's lengths, are parts by themselves, so that
            ``optimizer.learning_rate`` gives each a rate of its own: LoRA+ (Hayou et al., ICML 2024).
    """

    name = "peft_tuner"

    def __init__(
        self,
        tuner: str,
        settings: dict[str, Any] | None = None,
        vision: dict[str, Any] | None = None,
        interaction: bool = True,
        split_factors: bool = False,
    ) -> None:
        super().__init__(interaction)
        if tuner not in TUNERS:
            raise BadInputError(
                f"{tuner!a:.40} is no tuner of peft that is known to keep the contract of methods",
                where="model.method.tuner",
                expected=" or ".join(TUNERS),
            )
        given = {LANGUAGE: settings, VISION: vision}
        if settings is None and vision is None:
            raise BadInputError(
                "neither settings nor vision: nothing is wrapped",
                where="model.method.settings",
                expected="settings of the tuner; {} takes peft's defaults in all layers of the language model",
            )
        if split_factors and tuner != LORA:
            raise BadInputError(
                f"{tuner} has no factors A and B",
                where="model.method.split_factors",
                expected="false, or tuner: lora",
            )
        self.tuner, self.split_factors = tuner, split_factors
        self.settings = {
            component: checked_settings(tuner, own, ARGUMENTS[component])
            for component, own in given.items()
            if own is not None
        }
        self.dropouts = nn.ModuleDict(
            {component: nn.Dropout(own.get("lora_dropout", 0.0)) for component, own in self.settings.items()}
        )

    def check(self, shape: BackboneShape) -> None:
        """Checks that peft is installed, and has weights to start from.

        Raises:
            EnvironmentFailure: If it is not.
            BadInputError: If the start changes weights that are kept packed.
        """
        try:
            with hidden_module(UNUSED):
                import peft  # noqa: F401
        except ImportError as error:
            raise EnvironmentFailure(
                f"peft cannot be imported ({error})",
                where="model.method",
                expected="the package whose layers these are",
                hint="pip install -c constraints.txt -e '.[peft]'",
            ) from error
        start = self.settings.get(LANGUAGE, {}).get("init_lora_weights")
        if start in CHANGE_BASE and shape.quantised_language_model:
            raise BadInputError(
                f"{start} changes the weight that it starts from, and packed weights are not packed again",
                where="model.method.settings.init_lora_weights",
                expected="true, false, gaussian or orthogonal; or model.backbone.quantization: null",
            )

    def parts_of(self, component: str) -> list[str]:
        """Returns the parts of a component, as they would be if it is wrapped."""
        if self.tuner != LORA:
            return [f"{component}_{self.tuner}"]
        if not self.split_factors:
            return [PARTS[component]]
        lengths = self.settings.get(component, {}).get("use_dora", False)
        return [f"{PARTS[component]}_{factor}" for factor in FACTORS.values() if factor != "magnitude" or lengths]

    def part_names(self) -> list[str]:
        """Returns the parts of the components that are wrapped."""
        return [*(part for component in self.settings for part in self.parts_of(component)), *self.interaction_names()]

    def possible_parts(self) -> list[str]:
        """Returns the parts of both components, wrapped or not."""
        return [*self.parts_of(LANGUAGE), *self.parts_of(VISION), INTERACTION]

    def part_of(self, component: str, tensor: str) -> str:
        """Returns the part of a tensor of one of peft's layers."""
        if not self.split_factors:
            return self.parts_of(component)[0]
        return f"{PARTS[component]}_{FACTORS[tensor.partition('.')[0]]}"

    def alpha_of(self, part: str, name: str) -> float:
        """Returns LoRA's alpha of a layer: as peft, that of the first pattern that names it.

        Args:
            part: The part that updates it.
            name: Its name there.
        """
        own = self._settings_of(part)
        named = (alpha for pattern, alpha in own["alpha_pattern"].items() if name_for(name, (pattern,)))
        return float(next(named, own["lora_alpha"]))

    def _settings_of(self, part: str) -> Mapping[str, Any]:
        return next(own for component, own in self.settings.items() if part in self.parts_of(component))

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        """Lets peft make its layers, which draw from torch's own generator: it is seeded by this one meanwhile."""
        seed = int(torch.randint(2**62, (), generator=generator))
        chosen = {component: self._chosen_layers(backbone, component) for component in self.settings}
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            for component, layers in chosen.items():
                self._wrap(component, layers)
        self.build_interaction(backbone)

    def _wrap(self, component: str, layers: Mapping[str, nn.Linear]) -> None:
        parts, own = self.parts_of(component), self.settings[component]
        holders = {part: self.new_holder(part) for part in parts}
        for place, linear in layers.items():
            name = name_in_part(place)
            layer = peft_layer(linear, name, self.tuner, own, ARGUMENTS[component])
            if own.get("lora_dropout"):
                layer.lora_dropout[ADAPTER] = ModuleReference(self.dropouts[component])
            for tensor, parameter in trained_in(layer).items():
                register_parameter_at(holders[self.part_of(component, tensor)], f"{name}.{tensor}", parameter)
            self._stand_ins.append(StandIn(parts[0], place, linear, layer))

    def _chosen_layers(self, backbone: Backbone, component: str) -> dict[str, nn.Linear]:
        """Returns the layers of a component that are wrapped.

        Raises:
            BadInputError: If there are none, a name among the settings is no wrapped layer's, or what is trained would
                be lost in the base's type.
        """
        layers, own = linear_layers(backbone, component), self.settings[component]
        named = {name_in_part(place): place for place in layers}
        places = [named[name] for name in chosen_by_peft(self.tuner, own, named)]
        refuse_names_of_nothing(own, list(named), [name_in_part(place) for place in places], ARGUMENTS[component])
        wrapped = {name_in_part(place): layers[place] for place in places}
        refuse_lost_rotations(wrapped, own, getattr(torch, backbone.dtype_name), ARGUMENTS[component])
        return {place: layers[place] for place in places}

    def inject(self, backbone: Backbone, without: AbstractSet[str]) -> None:
        """Puts peft's layers in; a component of which one part is knocked out has none, for a layer is one function."""
        parts_of = [self.parts_of(component) for component in self.settings]
        whole = {parts[0] for parts in parts_of if without & set(parts)}
        super().inject(backbone, whole)
        for stand_in in self._stand_ins:
            if stand_in.part not in whole and isinstance(stand_in.replacement, nn.Module):
                follow(stand_in.replacement)

    def attachment(self, without: AbstractSet[str]) -> Attachment:
        """Returns the interaction layer, and the dropout in front of every A of the language model."""
        attachment = super().attachment(without)
        if LANGUAGE in self.settings and not without & set(self.parts_of(LANGUAGE)):
            dropout = self.dropouts[LANGUAGE]
            attachment.decoder_dropout = dropout if isinstance(dropout, nn.Dropout) else None
        return attachment

    def may_start_without_gradient(self) -> set[str]:
        """Returns what is multiplied by a factor that starts at zero."""
        return {
            name
            for component, own in self.settings.items()
            for part in self.parts_of(component)
            for name, _ in self.parts().get(part, [])
            if name.endswith(self._late_endings(own))
        }

    def _late_endings(self, own: Mapping[str, Any]) -> tuple[str, ...]:
        if self.tuner == LORA:
            return ("lora_A.weight",) if own["init_lora_weights"] in (True, "gaussian") else ()
        return LATE.get(self.tuner, ()) if own.get("init_weights", True) else ()

    def frozen_bytes(self) -> int:
        """Returns what changed weights take beside those that they stand in for."""
        return sum(
            each.numel() * each.itemsize
            for stand_in in self._stand_ins
            if isinstance(stand_in.original, nn.Linear) and self._changes_base(stand_in.part)
            for each in (stand_in.original.weight,)
        )

    def kept_factor(self) -> float:
        """Returns what is more for DoRA, which keeps outputs beside inputs."""
        return DORA_KEEPS if any(own.get("use_dora") for own in self.settings.values()) else 1.0

    def kept_weight_bytes(self) -> dict[str, int]:
        """Returns what HRA keeps: a square for every reflection and the identity, and the changed weight."""
        found: Counter[str] = Counter()
        for stand_in in self._stand_ins if self.tuner == "hra" else ():
            if isinstance(stand_in.original, nn.Linear):
                own = self._settings_of(stand_in.part)
                squares = 1 if own["apply_GS"] else own["r"] + 1  # made orthogonal, vectors are multiplied at once
                found[layer_of(stand_in.place)] += hra_kept_bytes(stand_in.original, squares)
        return dict(found)

    def _changes_base(self, part: str) -> bool:
        return any(
            own.get("init_lora_weights") in CHANGE_BASE and part in self.parts_of(component)
            for component, own in self.settings.items()
        )

    def places(self) -> set[Place]:
        """Returns the linear layers, and the projector if it is trained."""
        return {*(PLACES[component] for component in self.settings), *self.interaction_places()}

    def toggles(self) -> dict[str, bool | int | str]:
        """Returns the tuner, its settings and which components are trained."""
        said: dict[str, bool | int | str] = {"method": self.name, "tuner": self.tuner}
        for component, own in self.settings.items():
            beginning = "" if component == LANGUAGE else f"{component}_"
            for key, value in own.items():
                said[beginning + key] = value if isinstance(value, bool | int | str) else json.dumps(value)
        return {**said, **self.switches()}

    def adapter_config(self) -> dict[str, object]:
        """Returns the constructor's arguments, with all settings that there are."""
        return {
            "tuner": self.tuner,
            "settings": self.settings.get(LANGUAGE),
            "vision": self.settings.get(VISION),
            "interaction": self.train_interaction,
            "split_factors": self.split_factors,
        }


def follow(layer: nn.Module) -> None:
    """Lets what a layer of peft holds beside trained tensors stand on their device, where a model has moved."""
    layer.to(next(iter(trained_in(layer).values())).device)


def layer_of(place: str) -> str:
    """Returns the layer of a backbone in which a place is: its name up to the first number, or the whole of it."""
    steps = place.split(".")
    number = next((at for at, step in enumerate(steps) if step.isdecimal()), len(steps))
    return ".".join(steps[: number + 1])


def hra_kept_bytes(linear: nn.Linear, squares: int) -> int:
    """Returns what autograd keeps of HRA in front of a linear layer, whatever the rows.

    Args:
        linear: The frozen layer.
        squares: How many matrices as wide as its input are kept.
    """
    # The changed weight; peft makes a copy in float32 of one that is not, such as a packed one, and that is kept too.
    # A packed layer has no weight to look at without unpacking it.
    is_copied = isinstance(linear, QuantisedLinear) or linear.weight.dtype != torch.float32
    numbers = linear.in_features * (linear.in_features * squares + (1 + is_copied) * linear.out_features)
    return numbers * torch.float32.itemsize


def refuse_names_of_nothing(
    settings: Mapping[str, Any], offered: Iterable[str], chosen: Iterable[str], where: str
) -> None:
    """Refuses settings that name no layer.

    Args:
        settings: All of a tuner's.
        offered: The names of layers that there are.
        chosen: Those of the layers that are wrapped.
        where: The argument that the settings stand in.

    Raises:
        BadInputError: Naming the first.
    """
    offered, chosen = list(offered), list(chosen)
    example = offered[0] if offered else "none: it has no linear layer of its own"
    for key, among in (
        ("target_modules", chosen),
        ("exclude_modules", offered),
        ("feedforward_modules", chosen),
        ("rank_pattern", chosen),
        ("alpha_pattern", chosen),
    ):
        for name in settings.get(key) or ():
            if not any(name_for(place, (name,)) for place in among):
                raise BadInputError(
                    f"no {'wrapped ' if among is chosen else ''}linear layer is called {name!a:.80}",
                    where=f"model.method.{where}.{key}",
                    expected=f"names of layers, or their last steps, such as {example}",
                )
    for number in settings.get("layers_to_transform") or ():
        if not any(f".{number}." in place for place in chosen):
            raise BadInputError(
                f"no wrapped linear layer is in a layer {number}",
                where=f"model.method.{where}.layers_to_transform",
                expected=f"numbers of layers, such as that in {example}",
            )
    if not chosen:
        raise BadInputError(
            "no linear layer is wrapped",
            where=f"model.method.{where}",
            expected=f"target_modules without exclude_modules to leave some of them; such as {example}",
        )
