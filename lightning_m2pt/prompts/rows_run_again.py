"""The reference of answering: rows that have run are kept as they were put in, and run again with those behind them.

Nothing is assumed but that a row depends on the rows before it: what each new row sees is read off the mask and run as
a sequence of its own, as it would stand alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_m2pt.prompts.past_rows import PastRows


@dataclass(frozen=True)
class RowsRunAgain(PastRows):
    """Past rows of which no layer keeps anything.

    Attributes:
        embeddings: (B, K, D), what was put into the decoder.
    """

    embeddings: Tensor = field(kw_only=True)

    def of(self, samples: Tensor) -> "RowsRunAgain":
        """Returns the rows of these samples (N,) alone."""
        positions = self.positions if len(self.positions) == 1 else self.positions[samples]
        return RowsRunAgain((), positions, embeddings=self.embeddings[samples])


def run_again(
    run: Callable[[Tensor], Tensor],
    past: RowsRunAgain,
    embeddings: Tensor,
    positions: Tensor,
    visible: Tensor,
    wanted: Tensor | None = None,
) -> tuple[Tensor, RowsRunAgain]:
    """Runs N new rows of every sample, each behind the past and new rows that it sees.

    Args:
        run: Runs whole sequences (B, S, D) and returns (B, S, D); what stands behind a row does not change it.
        past: K rows of each sample.
        embeddings: (B, N, D) new rows.
        positions: (B or 1, N) int64: how many rows each row has before it.
        visible: (B or 1, N, K + N) bool, which past and new rows each new row sees, itself among them.
        wanted: (B, W) the new rows whose output is needed; None: all.

    Returns:
        (B, W or N, D), and the past with the new rows behind it.

    Raises:
        RuntimeError: If the rows that a row sees are not one sequence.
    """
    samples, before = len(embeddings), past.length
    rows = torch.cat([past.embeddings, embeddings], dim=1)
    places = torch.cat([past.positions.expand(samples, -1), positions.expand(samples, -1)], dim=1)
    seen = visible.expand(samples, -1, -1)
    # A row that another new row sees runs within that row's sequence.
    ends = (seen[:, :, before:].sum(dim=1) == 1).nonzero().tolist()
    sequences = []
    for sample, end in ends:
        numbers = seen[sample, end].nonzero()[:, 0]
        numbers = numbers[places[sample, numbers].argsort()]
        if not torch.equal(places[sample, numbers], torch.arange(len(numbers), device=places.device)):
            raise RuntimeError("the rows that a row sees are not one sequence")
        sequences.append((sample, numbers))
    output = torch.zeros_like(embeddings)
    for start in range(0, len(sequences), samples):
        together = sequences[start : start + samples]
        states = run(pad_sequence([rows[sample, numbers] for sample, numbers in together], batch_first=True))
        for own, (sample, numbers) in zip(states, together, strict=True):
            is_new = numbers >= before
            output[sample, numbers[is_new] - before] = own[: len(numbers)][is_new]
    if wanted is not None:
        output = output.gather(1, wanted[..., None].expand(-1, -1, output.shape[-1]))
    return output, RowsRunAgain((), places, embeddings=rows)
