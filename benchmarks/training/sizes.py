"""The sizes the training step is measured at.

A text is 300 tokens, 30 of them supervised, as the arithmetic of a Vision-Flan sample has it; the first 35 (begin
token, system text and the role's name of the Vicuna template) are the same in every sample and stand before the image.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class TrainingSize:
    """A backbone's sizes, the prompts' lengths and what a batch holds.

    Attributes:
        name: What the tables call it.
        vision_layers: Blocks of the vision tower, the unused last one included.
        vision_width: Width of the tower; its MLP is four times as wide.
        image_size: Side of the picture in pixels.
        patch_size: Side of a patch in pixels.
        text_layers: Decoder layers.
        text_width: Width of the decoder.
        text_hidden: Width inside the decoder's gated MLP.
        vocabulary: Tokens.
        textual_length: Prompt rows of each decoder layer (the first number of "10/20").
        visual_length: Prompt rows of each vision layer (the second).
        batch: Samples in a batch.
        text_tokens: Text tokens of a sample, the image not among them.
        system_tokens: Those of them that stand before the image and are the same in every sample.
        supervised: Those of them, the last ones, that are supervised.
        text_head_width: Width of a head of the decoder.
        vision_head_width: Width of a head of the tower.
    """

    name: str
    vision_layers: int
    vision_width: int
    image_size: int
    patch_size: int
    text_layers: int
    text_width: int
    text_hidden: int
    vocabulary: int
    textual_length: int = 10
    visual_length: int = 20
    batch: int = 4
    text_tokens: int = 300
    system_tokens: int = 35
    supervised: int = 30
    text_head_width: int = 64
    vision_head_width: int = 64

    @property
    def patches(self) -> int:
        """Patches of a picture."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def prompts(self) -> str:
        """The prompts' lengths as the paper writes them."""
        return f"{self.textual_length}/{self.visual_length}"

    @property
    def cell(self) -> str:
        """What the stored results and the tables call the measurement of this size."""
        return f"vocabulary {self.vocabulary}, prompts {self.prompts}"

    def with_prompts(self, textual: int, visual: int) -> "TrainingSize":
        """Returns the same size with other prompts."""
        return replace(self, textual_length=textual, visual_length=visual)


CPU = TrainingSize("cpu", 6, 192, 64, 4, 6, 384, 1024, vocabulary=4000)
"""Six and six layers: what a processor can repeat often enough, with a real sample's number of rows."""

CPU_CELLS = tuple(
    replace(CPU, vocabulary=vocabulary).with_prompts(*prompts)
    for vocabulary in (4000, 32000)
    for prompts in ((10, 20), (100, 100))
)

GATE = TrainingSize("gate", 3, 64, 16, 4, 3, 64, 160, 200, 4, 5, batch=4, text_tokens=90, system_tokens=9, supervised=6)
"""Small enough for the fast tests."""

VICUNA_7B = TrainingSize(
    "vicuna7b", 24, 1024, 224, 14, 32, 4096, 11008, vocabulary=32000, batch=32, text_head_width=128
)
"""CLIP ViT-L/14 at 224 pixels and Vicuna-7B."""
