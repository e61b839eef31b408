"""PTUM's original form: learned keys and values in the language model (Yang et al., Findings of ACL 2023).

The paper's text speaks of embeddings added to each layer, its code is prefix tuning. The first form is M2PT without
visual prompts; this is the second. On a Llama-form decoder they differ by the frozen projections and the norm between
a row and its keys and values.
"""

from collections.abc import Set as AbstractSet

import torch

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.decoders.reference import refuse_by_reference
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.methods.argument_checks import require_dropout, require_positive, require_size
from lightning_m2pt.methods.base import Place
from lightning_m2pt.methods.new_tensors import new_tensors
from lightning_m2pt.methods.with_interaction import INTERACTION, WithInteraction
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.prompts.key_value_prefix import PrefixEmbedding

PREFIX = "prefix"


class PrefixTuning(WithInteraction):
    """Learned keys and values in front of every decoder layer's own.

    Args:
        length: Keys and values per layer, P (64 in the paper's default).
        reparameterisation: None: the numbers themselves are trained. A width: an embedding of that width is, and
            Linear, ReLU, Linear make keys and values of it; all of it is trained, saved and counted.
        init_std: Standard deviation of the normal the embedding starts from (1.0 in the published code).
        dropout: Dropout on keys and values in training (0.2 in the published code).
        interaction: Train the projector between vision and language.
    """

    name = "prefix"
    prompt_names = frozenset({PREFIX})

    def __init__(
        self,
        length: int = 10,
        reparameterisation: int | None = None,
        init_std: float = 1.0,
        dropout: float = 0.0,
        interaction: bool = True,
    ) -> None:
        super().__init__(interaction)
        require_size("length", length, 1)
        if reparameterisation is not None:
            require_size("reparameterisation", reparameterisation, 1)
        require_dropout(dropout)
        require_positive("init_std", init_std)
        self.length, self.reparameterisation = length, reparameterisation
        self.init_std, self.dropout = init_std, dropout
        self.prefix: PrefixEmbedding | None = None

    def check(self, shape: BackboneShape) -> None:
        """Refuses a backbone that has no place for learned keys and values.

        Raises:
            BadInputError: If the library's own forward runs it.
        """
        refuse_by_reference(shape, "learned keys and values")

    def part_names(self) -> list[str]:
        """Returns the components that are switched on."""
        return [PREFIX, *self.interaction_names()]

    def possible_parts(self) -> list[str]:
        """Returns all components, switched on or off."""
        return [PREFIX, INTERACTION]

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        """Makes the embedding, and the layers behind it if there are some, in float32."""
        shape = backbone.shape
        with new_tensors(backbone) as is_meta:
            self.prefix = PrefixEmbedding(
                shape.text_layers,
                self.length,
                shape.text_key_value_heads * shape.text_head_width,
                self.reparameterisation,
                self.dropout,
            )
        if not is_meta:
            self.prefix.initialise(self.init_std, generator)
        self.build_interaction(backbone)

    def attachment(self, without: AbstractSet[str]) -> Attachment:
        """Leaves out what is knocked out."""
        attachment = super().attachment(without)
        attachment.key_value_prefix = None if PREFIX in without else self.prefix
        return attachment

    def rows_before_text(self) -> int:
        """Returns the prefix's length."""
        return self.length

    def places(self) -> set[Place]:
        """Returns the rows before the text, and the projector if it is trained."""
        return {"textual prompts", *self.interaction_places()}

    def toggles(self) -> dict[str, bool | int | str]:
        """Returns the length and which components are trained."""
        return {
            "method": self.name,
            "length": self.length,
            "reparameterisation": self.reparameterisation or "none",
            INTERACTION: self.train_interaction,
        }

    def adapter_config(self) -> dict[str, object]:
        """Returns the constructor's arguments that decide the tensors and the numbers."""
        return {
            "length": self.length,
            "reparameterisation": self.reparameterisation,
            "interaction": self.train_interaction,
        }
