"""Full fine-tuning: everything the backbone computes with is trained. The upper bound of what a testbed allows."""

import torch
from torch import nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.base import Place
from lightning_m2pt.methods.stand_ins import StandIn, WithStandIns, register_parameter_at
from lightning_m2pt.methods.with_interaction import INTERACTION

VISION, LANGUAGE = "vision", "language"


class Full(WithStandIns):
    """Trains copies of all tensors that the backbone's output depends on.

    Args:
        vision: Train the vision tower up to the layer whose features are used.
        interaction: Train the projector between vision and language.
        language: Train the language model with its word embeddings and its head.
    """

    name = "full"
    pretrained_parts = frozenset({VISION, INTERACTION, LANGUAGE})

    def __init__(self, vision: bool = True, interaction: bool = True, language: bool = True) -> None:
        super().__init__(interaction)
        if not (vision or interaction or language):
            raise BadInputError(
                "vision, interaction and language are all false",
                where="model.method",
                expected="at least one part to train",
                hint="lightning_m2pt.methods.frozen.Frozen trains nothing",
            )
        self._is_on = {VISION: vision, INTERACTION: interaction, LANGUAGE: language}
        self._word_embedding: set[str] = set()

    def check(self, shape: BackboneShape) -> None:
        """Refuses to train what is kept packed.

        Raises:
            BadInputError: If the language model shall be trained and its weights are quantised.
        """
        if self._is_on[LANGUAGE] and shape.quantised_language_model:
            raise BadInputError(
                "quantised weights cannot be trained",
                where="model.method.language",
                expected="false, or model.backbone.quantization: null",
                hint="lightning_m2pt.methods.lora.Lora trains low-rank updates beside them",
            )

    def part_names(self) -> list[str]:
        """Returns the components that are switched on."""
        return [part for part, is_on in self._is_on.items() if is_on]

    def possible_parts(self) -> list[str]:
        """Returns all components, switched on or off."""
        return list(self._is_on)

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        """Copies all tensors that are used in float32, each under the name it has in its library's module."""
        word_embedding, used = backbone.token_embedding().weight, backbone.used_tensors()
        for part in self.part_names():
            if part == INTERACTION:
                self.build_interaction(backbone)
                continue
            holder = self.new_holder(part)
            copies: dict[int, nn.Parameter] = {}
            for place, original in used[part].items():
                if id(original) not in copies:  # a head tied to the word embeddings stays tied
                    copy = nn.Parameter(original.detach().to(torch.float32, copy=True))
                    copies[id(original)] = copy
                    name = place.partition(".")[2]
                    register_parameter_at(holder, name, copy)
                    if original is word_embedding:
                        self._word_embedding.add(f"{part}.{name}")
                self._stand_ins.append(StandIn(part, place, original, copies[id(original)]))

    def may_start_without_gradient(self) -> set[str]:
        """Returns the word embeddings, if trained: only rows of words that occur in the first step have a gradient."""
        return self._word_embedding

    def places(self) -> set[Place]:
        """Returns all places of the components that are switched on, but prompts and sublayer outputs."""
        places: dict[str, set[Place]] = {
            VISION: {"vision tower's linear layers", "vision tower's norms", "vision tower's other tensors"},
            INTERACTION: {"projector"},
            LANGUAGE: {
                "language model's linear layers",
                "language model's norms",
                "language model's word embeddings",
                "head",
            },
        }
        return set().union(*(places[part] for part in self.part_names()))

    def toggles(self) -> dict[str, bool | int | str]:
        """Returns which components are trained."""
        return {"method": self.name, **self._is_on}

    def adapter_config(self) -> dict[str, object]:
        """Returns the constructor's arguments."""
        return dict(self._is_on)
