"""A tower's own library pass with prompt rows put in: what the ways through a tower are compared with.

As in ``library_forward``, nothing here is shared with what trains and answers: the library runs its whole tower, hooks
of this file put rows in, and they stay in the sequence to the end.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.library_forward import RowsRead, put_before, with_raw_rows

if TYPE_CHECKING:  # the backbone calls this file
    from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder


def library_tower_rows(backbone: "TowerAndDecoder", pixel_values: Tensor) -> Tensor:
    """Returns (B, N, D): the rows for the connector, raw prompt rows in front.

    Args:
        backbone: With what is attached to it, none of it installed in the tower.
        pixel_values: (B, 3, H, W).
    """
    tower, module, prompts = backbone.tower, backbone.vision_tower, backbone.attachment.visual_prompts
    blocks = backbone.tower_blocks()
    in_front = 0
    with ExitStack() as stack:
        for block, rows in zip(blocks, prompts.layer_rows() if prompts is not None else [], strict=False):
            if rows is not None:
                stack.callback(block.register_forward_pre_hook(put_before(rows, in_front)).remove)
                in_front = rows.shape[1]
        last = tower.norm(module) if backbone.feature_norm else blocks[-1]
        stack.callback(last.register_forward_hook(stop_behind).remove)
        states = rows_read(lambda: tower.run(module, pixel_values.to(next(module.parameters()).dtype)))[:, in_front:]
    own = backbone.shape.vision_rows_in_front
    class_row = min(own, 1)
    return with_raw_rows(backbone.attachment, torch.cat([states[:, :class_row], states[:, own:]], dim=1), class_row > 0)


def stop_behind(_block: nn.Module, _given: object, rows: Tensor) -> None:
    """Ends the pass with what this block returns: where a copy of the tower is trained, later ones are of other types.

    Raises:
        RowsRead: With the rows.
    """
    raise RowsRead(rows)


def rows_read(run: Callable[[], object]) -> Tensor:
    """Returns the rows with which a pass ends.

    Raises:
        RuntimeError: If it runs to its end.
    """
    try:
        run()
    except RowsRead as read:
        return read.rows
    raise RuntimeError("the block behind which features are taken was not called")
