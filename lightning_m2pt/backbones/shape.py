"""A backbone's sizes, and what else is known of it before any weight is loaded."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_m2pt.inputs.processing import Interpolation, ResizeRule


@dataclass
class BackboneShape:
    """Sizes read from configuration files alone.

    Attributes:
        end_of_positions: Why there are no more than ``maximum_positions``, as the end of a sentence.
        runs_reference: The language model's type if its form is not proven, so that every pass is the library's own
            over whole sequences; empty if it is.
        raw_rows_refused: Why no raw prompt row can go through the connector; empty: they can.
        visual_prompts_refused: Why the tower takes no prompt rows; empty: it does.
        visual_prefix_refused: Why visual prompts cannot be keys and values; empty: they can.
        vision_rows_in_front: The tower's own rows before its patches: CLS, and registers.
        joined_patches: Patches of which the connector makes one row.
        vision_gated_mlp: Whether the tower's blocks are like the language model's: gated MLPs, norms that compute in
            float32.
        tiles_are_patches: Whether pictures have grids of their own, so that what is counted as a picture's tiles are
            its patches.
    """

    vision_layers: int
    vision_width: int
    patches: int
    patch_size: int
    image_size: int
    text_layers: int
    text_width: int
    text_heads: int
    text_key_value_heads: int
    text_head_width: int
    vocabulary_size: int
    maximum_positions: int
    vision_mlp_width: int
    vision_quick_gelu: bool
    text_mlp_width: int
    image_mean: tuple[float, ...] = field(default=())
    image_std: tuple[float, ...] = field(default=())
    interpolation: Interpolation = "bicubic"
    resize: ResizeRule = "shortest_edge"
    recomputes_activations: bool = False
    runs_reference: str = ""
    end_of_positions: str = "the language model knows no later position"
    quantised_language_model: bool = False
    raw_rows_refused: str = ""
    visual_prompts_refused: str = ""
    visual_prefix_refused: str = ""
    vision_rows_in_front: int = 1
    joined_patches: int = 1
    vision_gated_mlp: bool = False
    tiles_are_patches: bool = False

    def normalisation(self) -> tuple[Tensor, Tensor] | None:
        """Returns the channels' means and deviations, (3, 1, 1) on the CPU; None if only the processor knows them."""
        if not self.image_mean:
            return None
        mean, std = (torch.tensor(each, device="cpu").view(3, 1, 1) for each in (self.image_mean, self.image_std))
        return mean, std

    @property
    def connected_patches(self) -> int:
        """Rows that the patches of one tile are behind the connector."""
        return self.patches // self.joined_patches
