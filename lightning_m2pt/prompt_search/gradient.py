"""How the loss changes with the embeddings of a prompt's tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.shortcuts import EVERY_ROW
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.tuning.losses import supervised_rows


def prompt_gradient(backbone: Backbone, batch: Batch, starts: Sequence[Sequence[int]], length: int) -> Tensor:
    """Returns the gradient of a batch's summed loss with respect to the rows that the prompt's tokens embed to.

    A batch's gradients have to be added before anything is ranked by them: a word that helps most samples helps no
    single one most.

    Args:
        backbone: A loaded backbone, with or without an attached method.
        batch: B conversations with the prompt in them.
        starts: Of each conversation where prompts begin among its tokens.
        length: Tokens of the prompt.

    Returns:
        (length, D) float32: summed over the conversations and all places of the prompt.
    """
    embedded: list[Tensor] = []

    def watched(_module: nn.Module, _given: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        """Makes the rows the beginning of the graph; wider than they are computed, so that sums are not rounded."""
        if embedded or rows.dim() != 2 or len(rows) != batch.input_ids.numel() + 1:
            raise RuntimeError("words are embedded otherwise than once and all together")
        wide = rows.double() if rows.dtype == torch.float64 else rows.float()
        embedded.append(wide.detach().requires_grad_())
        return embedded[0].to(rows.dtype)

    hook = backbone.token_embedding().register_forward_hook(watched)
    try:
        with torch.enable_grad():
            loss = supervised_rows(backbone, batch, EVERY_ROW).losses.sum()
            (gradient,) = torch.autograd.grad(loss, embedded)
    finally:
        hook.remove()
    columns = batch.input_ids.shape[1]
    places = [row * columns + start for row, of_sample in enumerate(starts) for start in of_sample]
    offsets = torch.arange(length, device=gradient.device)
    return gradient[torch.tensor(places, device=gradient.device)[:, None] + offsets].sum(dim=0).float()


def vocabulary_rows(backbone: Backbone, ids: Sequence[int]) -> Tensor:
    """Returns (len(ids), D) float32: what tokens embed to, with whatever the model's embedding multiplies them by."""
    embedding = backbone.token_embedding()
    with torch.inference_mode():
        rows: Tensor = embedding(torch.tensor(ids, device=embedding.weight.device))
        return rows.float().clone()


def linearised_changes(gradient: Tensor, rows: Tensor, current: Tensor) -> Tensor:
    """Returns (length, V): by how much the loss would change for each word in each place, to first order.

    Args:
        gradient: (length, D).
        rows: (V, D) of the words.
        current: (length, D) of the prompt.
    """
    return gradient @ rows.T - (gradient * current).sum(dim=1, keepdim=True)
