"""What a method puts into a backbone while it is attached."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor, nn

from lightning_m2pt.prompts.deep import DeepPrompts
from lightning_m2pt.prompts.key_value_prefix import KeyValuePrefix
from lightning_m2pt.prompts.pixel_prompt import PixelPrompt
from lightning_m2pt.prompts.token_path import VisualPosition

InjectionPath: TypeAlias = Literal["auto", "token", "prefix"]
VisualRowsToText: TypeAlias = Literal["official", "all", "none"]


@dataclass
class Attachment:
    """What a method puts into a backbone while it is attached.

    Attributes:
        visual_prompts: Prompt rows of the vision tower's layers.
        textual_prompts: Prompt rows of the decoder's layers.
        visual_rows_to_text: Which rows of the last vision layer's input go through the connector besides patches.
            ``official``: the raw prompt rows but the first, and CLS (the published code drops row 0, a prompt); a tower
            without CLS gives none;
            ``all``: all raw prompt rows, no CLS; ``none``: patches only.
        connector: Stands in for the pretrained projector.
        lm_head: Stands in for the pretrained head.
        path: ``token`` puts rows into the sequence (reference); ``prefix`` computes keys and values once per batch;
            ``auto`` takes the prefix path wherever it is exact.
        visual_position: Where visual prompts stand on the token path: before CLS (M2PT) or after it (VPT). Without
            positions of their own it makes no difference to other rows.
        key_value_prefix: Learned keys and values of the decoder; textual prompts beside it stand in the sequence.
        query_rows: For each decoder layer None, or (1, P, H * D_head) learned queries of the P textual prompt rows.
        decoder_dropout: Dropout that the decoder's rows go through. While it is active, rows that are alike in all
            samples do not stay alike.
        knocked_out: The method's parts that are not put in.
        pixel_prompt: Learned pixels that every picture, or tile of one, gets before the tower reads it.
    """

    visual_prompts: DeepPrompts | None = None
    textual_prompts: DeepPrompts | None = None
    visual_rows_to_text: VisualRowsToText = "none"
    connector: nn.Module | None = None
    lm_head: nn.Module | None = None
    path: InjectionPath = "auto"
    visual_position: VisualPosition = "before_cls"
    key_value_prefix: KeyValuePrefix | None = None
    query_rows: Sequence[Tensor | None] = ()
    decoder_dropout: nn.Dropout | None = None
    pixel_prompt: PixelPrompt | None = None
    knocked_out: frozenset[str] = frozenset()

    def draws_per_sample(self) -> bool:
        """Tells whether dropout is active inside the decoder."""
        dropout = self.decoder_dropout
        return dropout is not None and dropout.training and dropout.p > 0

    def rows_before_text(self) -> int:
        """Returns how many learned keys and values stand before the first real row of the decoder."""
        prompts, prefix = self.textual_prompts, self.key_value_prefix
        return (prompts.length if prompts is not None else 0) + (prefix.length if prefix is not None else 0)

    def rows_beside_patches(self, *, has_cls: bool = True) -> int:
        """Returns how many rows of an image go through the connector besides its patches; without CLS one less."""
        if self.visual_prompts is None or self.visual_rows_to_text == "none":
            return 0
        return self.visual_prompts.length - int(self.visual_rows_to_text == "official" and not has_cls)

    def raw_prompt_rows(self) -> int:
        """Returns how many rows every image begins with in the decoder that are the same for all pictures."""
        is_official = self.visual_rows_to_text == "official"
        return max(0, self.rows_beside_patches() - int(is_official))  # CLS is the picture's own
