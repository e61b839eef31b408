"""APrompt: prompts inside the attention, for queries, keys and values (Wang et al., EMNLP 2023).

No official code was found; this is a working definition. Input prompts are rows in front of the sequence at the first
layer, which flow on. At each layer a learned key and value rows stand before the layer's own, after the rotation, so
they have no position. Query prompts need a decision: the output of a learned query row is that row's own, so if it is
dropped at the end of the layer, the query row has exactly no gradient. Here they persist: they are what the input
prompts' rows ask, layer by layer, in the place of the frozen projection's queries, and what those rows find flows on.
The last layer has none, because nothing reads its prompt rows any more.
"""

from collections.abc import Set as AbstractSet

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.decoders.reference import refuse_by_reference
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.argument_checks import require_positive, require_size
from lightning_m2pt.methods.base import Place
from lightning_m2pt.methods.new_tensors import new_tensors
from lightning_m2pt.methods.with_interaction import INTERACTION, WithInteraction
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.prompts.deep import DeepPrompts
from lightning_m2pt.prompts.key_value_prefix import KeyValueTable

INPUT, QUERY, KEY_VALUE = "input_prompts", "query_prompts", "key_value_prompts"


class APrompt(WithInteraction):
    """Input prompts, and prompts for the queries, keys and values of every decoder layer.

    Args:
        input_length: Prompt rows in front of the sequence, P.
        attention_length: Learned keys and values per layer, a; 0 switches them off.
        query_prompts: Learn the queries of the input prompts' rows.
        init_std: Standard deviation of the normal that every tensor starts from.
        interaction: Train the projector between vision and language.
    """

    name = "aprompt"
    prompt_names = frozenset({INPUT, QUERY, KEY_VALUE})

    def __init__(
        self,
        input_length: int = 10,
        attention_length: int = 10,
        query_prompts: bool = True,
        init_std: float = 0.02,
        interaction: bool = True,
    ) -> None:
        super().__init__(interaction)
        require_size("input_length", input_length, 1)
        require_size("attention_length", attention_length, 0)
        require_positive("init_std", init_std)
        self.input_length, self.attention_length = input_length, attention_length
        self.train_query_prompts, self.init_std = query_prompts, init_std
        self.input_prompts: DeepPrompts | None = None
        self.query_prompts: nn.ParameterList | None = None
        self.key_value_prompts: KeyValueTable | None = None

    def check(self, shape: BackboneShape) -> None:
        """Refuses a decoder without ways of its own, and query prompts in one of one layer.

        Raises:
            BadInputError: If the backbone does not fit.
        """
        refuse_by_reference(shape, "learned keys, values and queries")
        if self.train_query_prompts and shape.text_layers < 2:
            raise BadInputError(
                "a decoder of one layer has no layer behind which query prompts could persist",
                where="model.method.query_prompts",
                expected="false",
            )

    def part_names(self) -> list[str]:
        """Returns the components that are switched on."""
        query = [QUERY] if self.train_query_prompts else []
        key_value = [KEY_VALUE] if self.attention_length else []
        return [INPUT, *query, *key_value, *self.interaction_names()]

    def possible_parts(self) -> list[str]:
        """Returns all components, switched on or off."""
        return [INPUT, QUERY, KEY_VALUE, INTERACTION]

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        """Makes all prompts in float32."""
        shape = backbone.shape
        with new_tensors(backbone) as is_meta:
            self.input_prompts = DeepPrompts([0], shape.text_layers, self.input_length, shape.text_width, dropout=0.0)
            if self.train_query_prompts:
                width = shape.text_heads * shape.text_head_width
                self.query_prompts = nn.ParameterList(
                    [nn.Parameter(torch.empty(1, self.input_length, width)) for _ in range(shape.text_layers - 1)]
                )
            if self.attention_length:
                width = shape.text_key_value_heads * shape.text_head_width
                self.key_value_prompts = KeyValueTable(shape.text_layers, self.attention_length, width)
        if not is_meta:
            self._initialise(generator)
        self.build_interaction(backbone)

    def attachment(self, without: AbstractSet[str]) -> Attachment:
        """Leaves out what is knocked out; query prompts go with the rows that ask with them."""
        attachment = super().attachment(without)
        attachment.textual_prompts = None if INPUT in without else self.input_prompts
        attachment.key_value_prefix = None if KEY_VALUE in without else self.key_value_prompts
        if self.query_prompts is not None and not {INPUT, QUERY} & set(without):
            queries: list[Tensor | None] = [*self.query_prompts, None]
            attachment.query_rows = queries
        return attachment

    def rows_before_text(self) -> int:
        """Returns the rows that stand in the sequence, and the keys and values before them."""
        return self.input_length + self.attention_length

    def places(self) -> set[Place]:
        """Returns the rows before the text, and the projector if it is trained."""
        return {"textual prompts", *self.interaction_places()}

    def toggles(self) -> dict[str, bool | int | str]:
        """Returns the lengths and which components are trained."""
        return {
            "method": self.name,
            "input_length": self.input_length,
            "attention_length": self.attention_length,
            **self.switches(),
        }

    def adapter_config(self) -> dict[str, object]:
        """Returns the constructor's arguments that decide the tensors and the numbers."""
        return {
            "input_length": self.input_length,
            "attention_length": self.attention_length,
            "query_prompts": self.train_query_prompts,
            "interaction": self.train_interaction,
        }

    def _initialise(self, generator: torch.Generator) -> None:
        if self.input_prompts is not None:
            self.input_prompts.initialise("normal", self.init_std, generator)
        with torch.no_grad():
            for rows in self.query_prompts or []:
                rows.normal_(0.0, self.init_std, generator=generator)
        if self.key_value_prompts is not None:
            self.key_value_prompts.initialise(self.init_std, generator)
