"""How the loss changes with the embeddings of a prompt's tokens."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.shortcuts import EVERY_ROW
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.tuning.losses import supervised_rows


def loss_and_gradient(
    backbone: Backbone, batch: Batch, starts: Sequence[Sequence[int]], length: int, rows: Tensor | None = None
) -> tuple[float, Tensor]:
    """Returns a batch's summed loss, and its gradient with respect to the rows that the prompt's tokens embed to.

    A batch's gradients have to be added before anything is ranked by them: a word that helps most samples helps no
    single one most.

    Args:
        backbone: A loaded backbone, with or without an attached method.
        batch: B conversations with the prompt in them.
        starts: Of each conversation where prompts begin among its tokens.
        length: Tokens of the prompt.
        rows: (length, D) that stand in the place of the prompt's own; None: its own.

    Returns:
        The loss, and (length, D) float32: its gradient, summed over the conversations and all places of the prompt.
    """
    with prompt_rows(backbone, batch, starts, length, rows) as embedded, torch.enable_grad():
        loss = supervised_rows(backbone, batch, EVERY_ROW).losses.sum()
        (gradient,) = torch.autograd.grad(loss, embedded)
    places = places_of_prompts(batch, starts, length).to(gradient.device)
    return float(loss.detach()), gradient[places].sum(dim=0).float()


@contextmanager
def prompt_rows(
    backbone: Backbone, batch: Batch, starts: Sequence[Sequence[int]], length: int, rows: Tensor | None
) -> Iterator[list[Tensor]]:
    """While it lasts, a batch's embedded words are the beginning of the graph, with given rows where prompts stand.

    The arguments are those of ``loss_and_gradient``.

    Yields:
        A list that holds (B T + 1, D) once the batch has run: all of its embedded words.
    """
    embedded: list[Tensor] = []
    places = places_of_prompts(batch, starts, length)

    def watched(_module: nn.Module, _given: tuple[Tensor, ...], words: Tensor) -> Tensor:
        """Makes the rows wider than they are computed, so that sums are not rounded."""
        if embedded or words.dim() != 2 or len(words) != batch.input_ids.numel() + 1:
            raise RuntimeError("words are embedded otherwise than once and all together")
        wide = (words.double() if words.dtype == torch.float64 else words.float()).detach()
        if rows is not None:
            wide = wide.index_put((places.to(wide.device),), rows.to(wide))
        embedded.append(wide.requires_grad_())
        return embedded[0].to(words.dtype)

    hook = backbone.token_embedding().register_forward_hook(watched)
    try:
        yield embedded
    finally:
        hook.remove()


def places_of_prompts(batch: Batch, starts: Sequence[Sequence[int]], length: int) -> Tensor:
    """Returns (places, length) int64: where prompts' tokens stand among the B T of a batch."""
    columns = batch.input_ids.shape[1]
    firsts = [row * columns + start for row, of_sample in enumerate(starts) for start in of_sample]
    return torch.tensor(firsts)[:, None] + torch.arange(length)


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
