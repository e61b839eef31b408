"""Prompt rows in a backbone's tower: the way they take through its blocks, and which of them go to the connector."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.connected_rows import VisualRows
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.prompts.prefix_path import VisionPrefixPath, is_foldable
from lightning_m2pt.prompts.token_path import put_rows_first
from lightning_m2pt.prompts.tower_rows import TowerPrefixPath, TowerTokenPath


class TowerPrompts:
    """Keeps one of the two ways installed, whichever the last pass needed.

    Args:
        prefix_path: The way as keys and values; None where the blocks cannot have it.
    """

    def __init__(self, prefix_path: TowerPrefixPath | VisionPrefixPath | None) -> None:
        self._token_path, self._prefix_path = TowerTokenPath(), prefix_path
        self._installed: TowerTokenPath | TowerPrefixPath | VisionPrefixPath | None = None

    def put(
        self, blocks: Sequence[nn.Module], rows: Sequence[Tensor | None], attachment: Attachment, rows_in_front: int
    ) -> None:
        """Readies the blocks for the next pass.

        Args:
            blocks: The blocks that run.
            rows: For each (1, P, D) or None; empty: they compute as the library wrote them.
            attachment: Says which way is wanted.
            rows_in_front: How many rows of the tower's own stand before the patches.
        """
        if not rows:
            if self._installed is not None:
                self._installed.rows = ()
            return
        # Dropout in front of low-rank layers draws for every sample's prompt rows, unless one pass is asked for.
        folds = attachment.path == "prefix" or (attachment.path == "auto" and not attachment.draws_per_sample())
        if self._prefix_path is not None and folds and is_foldable(rows):
            if self._installed is not self._prefix_path:
                self.remove()
                self._prefix_path.install(blocks)
            self._installed = self._prefix_path
        else:
            if self._installed is not self._token_path:
                self.remove()
                self._token_path.install(blocks, rows_in_front)
            self._installed = self._token_path
            self._token_path.position = attachment.visual_position
        self._installed.rows = rows

    def remove(self) -> None:
        """Gives the blocks back as the library made them."""
        if self._installed is not None:
            self._installed.remove()
        self._installed = None


def rows_for_connector(
    states: Tensor, raw_prompt: Tensor | None, attachment: Attachment, rows_in_front: int
) -> VisualRows:
    """Chooses the rows for the connector by name.

    ``official`` is the published slice: everything but the first of raw prompt rows, CLS and patches. In a tower
    without CLS that is all raw prompt rows but the first, and the patches. Registers never go to the connector.

    Args:
        states: (B, F + N, D): CLS and registers, if the tower has some, then patches.
        raw_prompt: (1, P, D) prompt of the connector's input, which passes no block at all; None without one.
        attachment: Says which are wanted.
        rows_in_front: F.
    """
    names = [Span.PATCH] * (states.shape[1] - rows_in_front)
    patches = states[:, rows_in_front:]
    choice = attachment.visual_rows_to_text
    if choice == "none" or raw_prompt is None:
        return VisualRows(patches, names)
    if choice == "all":
        rows = put_rows_first(raw_prompt, patches, 0)
        return VisualRows(rows, [Span.VISUAL_PROMPT] * raw_prompt.shape[1] + names)
    if rows_in_front:
        patches, names = torch.cat([states[:, :1], patches], dim=1), [Span.CLS, *names]
    rows = put_rows_first(raw_prompt[:, 1:], patches, 0)
    return VisualRows(rows, [Span.VISUAL_PROMPT] * (raw_prompt.shape[1] - 1) + names)
