"""M2PT: visual prompts, textual prompts and the interaction layer (Wang et al., EMNLP 2024).

Its special cases are arguments, not classes: without visual prompts (``visual_length: 0``), without textual prompts
(``textual_length: 0``, VPT), without interaction (``interaction: false``), projector only (both lengths 0).
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.decoders.reference import refuse_by_reference
from lightning_m2pt.backbones.filling.shares import whole, whole_copy
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.word_tokens import tokens_of_rows
from lightning_m2pt.methods.argument_checks import require_dropout, require_positive, require_size
from lightning_m2pt.methods.base import Place
from lightning_m2pt.methods.new_tensors import new_tensors
from lightning_m2pt.methods.rows_of_words import RowsOfLayers, rows_of_words
from lightning_m2pt.methods.with_interaction import INTERACTION, WithInteraction
from lightning_m2pt.prompts.attachment import Attachment, InjectionPath, VisualRowsToText
from lightning_m2pt.prompts.deep import DeepPrompts, Depth, Initialisation, LayerChoice, choose_layers
from lightning_m2pt.prompts.token_path import VisualPosition

VISUAL_PROMPTS, TEXTUAL_PROMPTS, LM_HEAD = "visual_prompts", "textual_prompts", "lm_head"


class M2PT(WithInteraction):
    """Deep visual prompts, deep textual prompts and a trained interaction layer over a frozen backbone.

    Args:
        visual_length: Visual prompt rows per layer (the second number of the paper's "10/20"); 0 switches them off.
        textual_length: Textual prompt rows per layer (the first number); 0 switches them off.
        visual_layers: ``all``, or ascending numbers of vision layers whose input gets rows of its own.
        textual_layers: The same for the decoder.
        visual_depth: ``deep``: every chosen layer has its own rows; ``shallow``: only the first, which flow on.
        textual_depth: The same for the decoder.
        interaction: Train the projector between vision and language (a copy; the pretrained one stays).
        visual_rows_to_text: Which rows reach the language model besides the patches. ``official``: the raw prompt
            rows of the last vision layer's input but the first, plus CLS, as the published code does (a tower without
            CLS gives none); ``all``: all of these rows, no CLS; ``none``: patches only.
        lm_head: Also train the language model's head, as the published script does and the paper's 0.09% excludes.
        visual_position: Where visual prompts stand in the tower: ``before_cls`` (M2PT) or ``after_cls`` (VPT). They
            have no positions and see and are seen by everything, so what comes out is the same.
        init: ``xavier_uniform`` on (1, P, D) as published; ``normal``; ``vocabulary`` copies random token
            embeddings into textual prompts (visual prompts then start as ``xavier_uniform``); ``vpt_uniform`` is
            VPT's bound from the patch size (textual prompts then start as ``xavier_uniform``); ``words`` starts
            textual prompts from ``init_text`` (visual prompts then start as ``xavier_uniform``).
        init_std: Standard deviation of ``normal``.
        dropout: Dropout on prompt numbers in training.
        path: ``auto`` uses the prefix path where it is exact; ``token`` is the reference; ``prefix`` insists.
        init_text: Words that textual prompts start from, with ``init: words``. A text of fewer tokens than rows is
            repeated; one of more is refused.
        init_layers: What deeper layers' rows start from, with ``init: words``: ``hidden``, what the frozen decoder
            makes of the text up to there, or ``embeddings``, the words' own rows again. With ``hidden`` in all layers
            the first step has exactly the model that reads the text in front of everything else.
    """

    name = "m2pt"
    prompt_names = frozenset({VISUAL_PROMPTS, TEXTUAL_PROMPTS})
    later_arguments: ClassVar[Mapping[str, object]] = MappingProxyType({"init_text": None, "init_layers": "hidden"})
    pretrained_parts = frozenset({INTERACTION, LM_HEAD})

    def __init__(
        self,
        visual_length: int = 20,
        textual_length: int = 10,
        visual_layers: LayerChoice = "all",
        textual_layers: LayerChoice = "all",
        visual_depth: Depth = "deep",
        textual_depth: Depth = "deep",
        interaction: bool = True,
        visual_rows_to_text: VisualRowsToText = "official",
        visual_position: VisualPosition = "before_cls",
        lm_head: bool = False,
        init: Initialisation = "xavier_uniform",
        init_std: float = 0.02,
        dropout: float = 0.0,
        path: InjectionPath = "auto",
        init_text: str | None = None,
        init_layers: RowsOfLayers = "hidden",
    ) -> None:
        super().__init__(interaction)
        require_size("visual_length", visual_length, 0)
        require_size("textual_length", textual_length, 0)
        require_dropout(dropout)
        require_positive("init_std", init_std)
        self.visual_length, self.textual_length = visual_length, textual_length
        self.visual_layers, self.textual_layers = visual_layers, textual_layers
        self.visual_depth: Depth = visual_depth
        self.textual_depth: Depth = textual_depth
        self.visual_rows_to_text: VisualRowsToText = visual_rows_to_text
        self.visual_position: VisualPosition = visual_position
        self.train_lm_head = lm_head
        self.init: Initialisation = init
        self.init_std, self.dropout = init_std, dropout
        self.path: InjectionPath = path
        self.init_text = init_text
        self.init_layers: RowsOfLayers = init_layers
        self._refuse_unused_words()
        self.visual_prompts: DeepPrompts | None = None
        self.textual_prompts: DeepPrompts | None = None
        self.lm_head: nn.Module | None = None

    def check(self, shape: BackboneShape) -> None:
        """Compares layers and choices with the backbone's sizes.

        Raises:
            BadInputError: If a layer does not exist or the combination has no meaning.
        """
        if self.visual_length:
            self._refuse_raw_rows(shape)
            self._chosen_visual_layers(shape)
        if self.textual_length:
            choose_layers(self.textual_layers, self.textual_depth, shape.text_layers, "model.method.textual_layers")
        if self.path == "prefix":
            if self.textual_length:
                refuse_by_reference(shape, "textual prompts as keys and values", "model.method.path")
            self._check_prefix_path(shape)

    def check_words(self, backbone: Backbone) -> None:
        """Reads the text that textual prompts start from.

        Raises:
            BadInputError: If the backbone's tokenizer cannot read it, or it has more tokens than there are rows.
        """
        if self.init == "words":
            self._first_tokens(backbone)

    def part_names(self) -> list[str]:
        """Returns the components that are switched on."""
        switches = {
            VISUAL_PROMPTS: self.visual_length > 0,
            TEXTUAL_PROMPTS: self.textual_length > 0,
            INTERACTION: self.train_interaction,
            LM_HEAD: self.train_lm_head,
        }
        return [part for part, is_on in switches.items() if is_on]

    def possible_parts(self) -> list[str]:
        """Returns all components, switched on or off."""
        return [VISUAL_PROMPTS, TEXTUAL_PROMPTS, INTERACTION, LM_HEAD]

    def build(self, backbone: Backbone, generator: torch.Generator) -> None:
        """Makes prompts and copies of the trained pretrained parts, in float32."""
        shape, words = backbone.shape, None
        if self.init == "words" and not next(backbone.parameters()).is_meta:
            words = rows_of_words(backbone, self._first_tokens(backbone), self.init_layers)
        with new_tensors(backbone) as is_meta:
            vocabulary = None if is_meta or self.init != "vocabulary" else whole(backbone.token_embedding().weight)
            if self.visual_length:
                self.visual_prompts = DeepPrompts(
                    self._chosen_visual_layers(shape),
                    shape.vision_layers,
                    self.visual_length,
                    shape.vision_width,
                    self.dropout,
                )
                visual_init: Initialisation = "xavier_uniform" if self.init == "vocabulary" else self.init
                self.visual_prompts.initialise(visual_init, self.init_std, generator, patch_size=shape.patch_size)
            if self.textual_length:
                self.textual_prompts = DeepPrompts(
                    choose_layers(self.textual_layers, self.textual_depth, shape.text_layers, "textual_layers"),
                    shape.text_layers,
                    self.textual_length,
                    shape.text_width,
                    self.dropout,
                )
                textual_init: Initialisation = "xavier_uniform" if self.init == "vpt_uniform" else self.init
                self.textual_prompts.initialise(textual_init, self.init_std, generator, vocabulary)
                if words is not None:
                    self.textual_prompts.start_from(words)
        self.build_interaction(backbone)
        if self.train_lm_head:
            self.lm_head = whole_copy(backbone.pretrained_lm_head())

    def dead_rows(self) -> dict[str, list[int]]:
        """With ``official`` rows, row 0 of the last visual prompt reaches nothing: the published slice."""
        if self.visual_prompts is None or self.visual_rows_to_text != "official":
            return {}
        return {f"{VISUAL_PROMPTS}.rows.{self.visual_prompts.layers[-1]}": [0]}

    def attachment(self, without: AbstractSet[str]) -> Attachment:
        """Leaves out what is knocked out; without visual prompts the connector sees patches only."""
        attachment = super().attachment(without)
        if self.visual_prompts is not None and VISUAL_PROMPTS not in without:
            attachment.visual_prompts, attachment.visual_rows_to_text = self.visual_prompts, self.visual_rows_to_text
        attachment.textual_prompts = None if TEXTUAL_PROMPTS in without else self.textual_prompts
        attachment.lm_head = None if LM_HEAD in without else self.lm_head
        attachment.path, attachment.visual_position = self.path, self.visual_position
        return attachment

    def rows_before_text(self) -> int:
        """Returns the textual prompts' length."""
        return self.textual_length

    def rows_beside_patches(self) -> int:
        """Returns the visual prompts' length; ``official`` rows are a prompt row less, and CLS."""
        return self.visual_length if self.visual_rows_to_text != "none" else 0

    def places(self) -> set[Place]:
        """Returns the places of the components that are switched on."""
        places: dict[str, Place] = {
            VISUAL_PROMPTS: "visual prompts",
            TEXTUAL_PROMPTS: "textual prompts",
            INTERACTION: "projector",
            LM_HEAD: "head",
        }
        return {places[part] for part in self.part_names()}

    def toggles(self) -> dict[str, bool | int | str]:
        """Returns the paper's ablation components and the choices that change the sequence."""
        return {
            "method": self.name,
            **self.switches(),
            "visual_length": self.visual_length,
            "textual_length": self.textual_length,
            "visual_depth": self.visual_depth,
            "textual_depth": self.textual_depth,
            "visual_rows_to_text": self.visual_rows_to_text if self.visual_length else "none",
        }

    def adapter_config(self) -> dict[str, object]:
        """Returns the constructor's arguments that decide the tensors and the numbers."""
        return {
            "visual_length": self.visual_length,
            "textual_length": self.textual_length,
            "visual_layers": self.visual_layers,
            "textual_layers": self.textual_layers,
            "visual_depth": self.visual_depth,
            "textual_depth": self.textual_depth,
            "interaction": self.train_interaction,
            "visual_rows_to_text": self.visual_rows_to_text,
            "visual_position": self.visual_position,
            "lm_head": self.train_lm_head,
        }

    def _first_tokens(self, backbone: Backbone) -> list[int]:
        """Returns the token that each textual row starts from."""
        tokenizer = backbone.processor().tokenizer
        return tokens_of_rows(self.init_text or "", self.textual_length, tokenizer, "model.method.init_text")

    def _refuse_unused_words(self) -> None:
        """Refuses words without rows that start from them, and rows without words."""
        if self.init != "words":
            said = {"init_text": self.init_text is not None, "init_layers": self.init_layers != "hidden"}
            for argument, is_said in said.items():
                if is_said:
                    raise BadInputError(
                        f"{argument} says what words prompts start from, and init is {self.init}",
                        where=f"model.method.{argument}",
                        expected=f"init: words, or no {argument}",
                    )
        elif not (self.init_text or "").strip():
            raise BadInputError("init: words, and no word is given", where="model.method.init_text", expected="a text")
        elif not self.textual_length:
            raise BadInputError(
                "init: words starts textual prompts, and there are none",
                where="model.method.init",
                expected="textual_length above 0, or another init",
            )

    def _refuse_raw_rows(self, shape: BackboneShape) -> None:
        if shape.visual_prompts_refused:
            raise BadInputError(
                f"this backbone takes no visual prompts: {shape.visual_prompts_refused}",
                where="model.method.visual_length",
                expected="0, with this backbone",
            )
        if shape.raw_rows_refused and self.visual_rows_to_text != "none":
            raise BadInputError(
                f"visual_rows_to_text={self.visual_rows_to_text}: {shape.raw_rows_refused}",
                where="model.method.visual_rows_to_text",
                expected="none, with this backbone",
            )

    def _chosen_visual_layers(self, shape: BackboneShape) -> list[int]:
        """Returns the vision layers with rows; the last layer's input matters only if it goes through the connector."""
        key, last = "model.method.visual_layers", shape.vision_layers - 1
        available = shape.vision_layers if self.visual_rows_to_text != "none" else last
        chosen = choose_layers(self.visual_layers, self.visual_depth, available, key)
        if self.visual_rows_to_text != "none" and chosen[-1] != last:
            raise BadInputError(
                f"visual_rows_to_text={self.visual_rows_to_text} needs rows at the last block's input, layer {last}",
                where="model.method.visual_depth" if self.visual_depth == "shallow" else key,
                expected=f"deep prompts whose layers include {last}, or visual_rows_to_text: none",
            )
        return chosen

    def _check_prefix_path(self, shape: BackboneShape) -> None:
        if self.visual_length and shape.visual_prefix_refused:
            raise BadInputError(
                shape.visual_prefix_refused,
                where="model.method.path",
                expected="auto or token, with this backbone",
            )
        visual = set(self._chosen_visual_layers(shape)) if self.visual_length else None
        textual = None
        if self.textual_length:
            textual = set(choose_layers(self.textual_layers, self.textual_depth, shape.text_layers, "textual_layers"))
        incomplete_vision = visual is not None and not set(range(shape.vision_layers - 1)) <= visual
        incomplete_text = textual is not None and textual != set(range(shape.text_layers))
        if incomplete_vision or incomplete_text:
            raise BadInputError(
                "the prefix path needs rows of their own in every used layer",
                where="model.method.path",
                expected="deep prompts on all layers",
                hint="path: auto takes the token path where it has to",
            )
