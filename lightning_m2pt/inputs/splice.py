"""Where the rows of pictures go among the rows of a text."""

import torch
from torch import Tensor

from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID


def splice_order(input_ids: Tensor, image_rows: int, images: int = 1) -> Tensor:
    """Returns (B, T - I + I N): for every output position the row of [T text rows, I N image rows] that goes there.

    Args:
        input_ids: (B, T) with exactly I times ``IMAGE_TOKEN_ID`` a row.
        image_rows: N.
        images: I.

    Raises:
        ValueError: If a row has another number of placeholders.
    """
    marks = input_ids == IMAGE_TOKEN_ID
    if not bool((marks.sum(dim=1) == images).all()):
        raise ValueError(f"every sample needs exactly {images} image placeholder(s)")
    samples, length = input_ids.shape
    device = input_ids.device
    # A text row moves on by N - 1 for every image before it; an image begins where its placeholder moves to.
    moved = torch.arange(length, device=device) + (marks.cumsum(dim=1) - marks.long()) * (image_rows - 1)
    order = torch.empty(samples, length - images + images * image_rows, dtype=torch.long, device=device)
    order.scatter_(1, moved, torch.arange(length, device=device).expand(samples, -1))
    begins = moved[marks].view(samples, images, 1)
    inside = (begins + torch.arange(image_rows, device=device)).view(samples, -1)
    return order.scatter_(
        1, inside, torch.arange(length, length + images * image_rows, device=device).expand_as(inside)
    )
