"""PTUM's original form: learned keys and values in the language model (Yang et al., Findings of ACL 2023).

The paper's text speaks of embeddings added to each layer, its code is prefix tuning. The first form is M2PT without
visual prompts; this is the second. On a Llama-form decoder they differ by the frozen projections and the norm between
a row and its keys and values.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import ClassVar

import torch

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.decoders.reference import refuse_by_reference
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.word_tokens import tokens_of_rows
from lightning_m2pt.methods.argument_checks import require_dropout, require_positive, require_size
from lightning_m2pt.methods.base import Place
from lightning_m2pt.methods.new_tensors import new_tensors
from lightning_m2pt.methods.rows_of_words import keys_and_values_of_words
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
        init_text: Words whose keys and values, as the frozen decoder makes them, the prefix starts from: the first
            step has exactly the model that reads them in front of everything else. A text of fewer tokens than
            ``length`` is repeated; one of more is refused. None: the start is drawn, as published.
        freeze_first: How many of the first positions keep the text's keys and values for good: they are not trained,
            not saved and not counted, but made of the text again wherever the method is built. Every row looks much at
            the first position, whatever stands there.
    """

    name = "prefix"
    prompt_names = frozenset({PREFIX})
    later_arguments: ClassVar[Mapping[str, object]] = MappingProxyType({"init_text": None, "freeze_first": 0})

    def __init__(
        self,
        length: int = 10,
        reparameterisation: int | None = None,
        init_std: float = 1.0,
        dropout: float = 0.0,
        interaction: bool = True,
        init_text: str | None = None,
        freeze_first: int = 0,
    ) -> None:
        super().__init__(interaction)
        require_size("length", length, 1)
        if reparameterisation is not None:
            require_size("reparameterisation", reparameterisation, 1)
        require_dropout(dropout)
        require_positive("init_std", init_std)
        self.length, self.reparameterisation = length, reparameterisation
        self.init_std, self.dropout = init_std, dropout
        self.init_text, self.freeze_first = init_text, freeze_first
        refuse_wrong_words(self)
        self.prefix: PrefixEmbedding | None = None

    def check(self, shape: BackboneShape) -> None:
        """Refuses a backbone that has no place for learned keys and values.

        Raises:
            BadInputError: If the library's own forward runs it.
        """
        refuse_by_reference(shape, "learned keys and values")

    def check_words(self, backbone: Backbone) -> None:
        """Reads the text that the prefix starts from.

        Raises:
            BadInputError: If the backbone's tokenizer cannot read it, or it has more tokens than the prefix positions.
        """
        if self.init_text is not None:
            self._tokens(backbone)

    def part_names(self) -> list[str]:
        """Returns the components that are switched on."""
        return [PREFIX, *self.interaction_names()]

    def possible_parts(self) -> list[str]:
        """Returns all components, switched on or off."""
        return [PREFIX, INTERACTION]

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        """Makes the embedding, and the layers behind it if there are some, in float32."""
        shape, words = backbone.shape, None
        if self.init_text is not None and not next(backbone.parameters()).is_meta:
            words = keys_and_values_of_words(backbone, self._tokens(backbone))
        with new_tensors(backbone) as is_meta:
            self.prefix = PrefixEmbedding(
                shape.text_layers,
                self.length,
                shape.text_key_value_heads * shape.text_head_width,
                self.reparameterisation,
                self.dropout,
                self.freeze_first,
            )
        if words is not None:
            self.prefix.start_from(words)
        elif not is_meta:
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
            **({"freeze_first": self.freeze_first} if self.freeze_first else {}),
        }

    def adapter_config(self) -> dict[str, object]:
        """Returns the constructor's arguments that decide the tensors and the numbers; the text, if rows keep it."""
        kept = {"init_text": self.init_text, "freeze_first": self.freeze_first} if self.freeze_first else {}
        return {
            "length": self.length,
            "reparameterisation": self.reparameterisation,
            "interaction": self.train_interaction,
            **kept,
        }

    def _tokens(self, backbone: Backbone) -> list[int]:
        """Returns the token that each position starts from."""
        tokenizer = backbone.processor().tokenizer
        return tokens_of_rows(self.init_text or "", self.length, tokenizer, "model.method.init_text")


def refuse_wrong_words(method: PrefixTuning) -> None:
    """Refuses a text that could not be what a prefix starts from, and frozen positions that nothing fills.

    Raises:
        BadInputError: If what is made of an embedding shall start from a text, there is no word in it, no position is
            learned, or positions are frozen without a text.
    """
    if method.init_text is not None and method.reparameterisation is not None:
        raise BadInputError(
            "keys and values that are made of an embedding cannot start from those of a text",
            where="model.method.init_text",
            expected="reparameterisation: null, or no init_text",
        )
    if method.init_text is not None and not method.init_text.strip():
        raise BadInputError("there is no word in it", where="model.method.init_text", expected="a text, or none")
    if not 0 <= method.freeze_first < method.length:
        raise BadInputError(
            f"{method.freeze_first:,} of {method.length:,} positions cannot be frozen",
            where="model.method.freeze_first",
            expected=f"0 to {method.length - 1:,}: the others are trained",
        )
    if method.freeze_first and method.init_text is None:
        raise BadInputError(
            "frozen positions, and no text that they keep the keys and values of",
            where="model.method.freeze_first",
            expected="init_text, or freeze_first: 0",
        )
